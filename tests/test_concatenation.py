"Properties that every plan of windows must have, whatever the clips are."
import itertools, math, time, tracemalloc

import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st

from whisper_tutorial import UserError
from whisper_tutorial.data import concatenation
from whisper_tutorial.data.concatenation import (LOOKS, SLACK_S, STRATEGIES, Plan, Stage, best_fit, flat, join, join_corpus, pack, place,
                                                 plan_stream, plan_windows, resolve_windows)
from whisper_tutorial.data.corpus import load_corpus, select
from whisper_tutorial.speech.audio import SR, load_audio

TOLERANCE_S = 1e-6
odd = st.sampled_from([0.0, -1.0, 30.0, 30.001, 29.9999, 0.1, 1e-9, 1e300, math.inf, -math.inf, math.nan, None])
durations = odd | st.floats(0.05, 12) | st.floats(width=32) | st.integers(0, 31)
counts = st.integers(0, 100) | st.sampled_from([0, 448, 449, 443, 444, -1, 10**9, math.nan, None])
speakers = st.sampled_from(["Ada", "Ben", "", None, math.nan])
clips = st.lists(st.tuples(durations, counts, speakers), max_size=60)
small_clips = st.lists(st.tuples(st.floats(0.05, 3), st.integers(0, 12), speakers), min_size=20, max_size=60)  # many to a window
options = st.fixed_dictionaries(dict(
    strategy=st.sampled_from(STRATEGIES), window_s=st.sampled_from([30.0, 3.5, 0.02, 7.12345]) | st.floats(0.02, 60),
    max_tokens=st.sampled_from([448, 100, 20, 6, 100_000]), overhead_tokens=st.integers(0, 5), gap_s=st.sampled_from([0.0, 0.01, 0.0001]),
    single_share=st.floats(0, 1), seed=st.integers(0, 2**32)))


def plan_of(rows, **kw):
    duration_s, n_tokens, speaker = ([row[k] for row in rows] for k in range(3))
    return plan_windows(duration_s, n_tokens, speaker=speaker, **kw)


def possible(duration, tokens, window_s, budget):
    if duration is None or tokens is None: return False
    return 0 < duration <= window_s and 0 <= tokens <= budget  # False for NaN


@settings(max_examples=400, deadline=None)
@given(clips, options)
def test_every_clip_is_in_one_window_or_left_out_with_a_reason(rows, kw):
    plan = plan_of(rows, **kw)
    for (duration, tokens, _), window, offset, reason in zip(rows, plan.window, plan.offset_s, plan.reason, strict=True):
        fits = possible(duration, tokens, kw["window_s"], kw["max_tokens"] - kw["overhead_tokens"])
        assert (window >= 0) == fits == (reason is None) == (not math.isnan(offset))
    inside = [i for w in plan.windows() for i in w]
    assert sorted(inside) == np.flatnonzero(plan.window >= 0).tolist()  # none lost, none twice
    assert len(plan.windows()) == plan.n_windows and all(plan.windows())
    report = plan.report()
    assert report["clips"] == len(rows) == report["joined"] + report["single"] + report["left_out"]
    assert sum(report["reasons"].values()) == report["left_out"]


@settings(max_examples=400, deadline=None)
@given(clips | small_clips, options)
def test_no_budget_is_exceeded_and_no_clip_lies_on_another(rows, kw):
    plan = plan_of(rows, **kw)
    for number, members in enumerate(plan.windows()):
        assert set(plan.window[members]) == {number}
        assert sum(rows[i][1] for i in members) + kw["overhead_tokens"] <= kw["max_tokens"]
        end = -kw["gap_s"]
        for i in members:  # from left to right
            assert plan.offset_s[i] >= end + kw["gap_s"] - TOLERANCE_S
            end = plan.offset_s[i] + rows[i][0]
        assert plan.offset_s[members[0]] == 0 and end <= kw["window_s"] + TOLERANCE_S
    assert 0 <= plan.fill <= 1 + TOLERANCE_S and 0 <= plan.token_fill <= 1


@settings(max_examples=100, deadline=None)
@given(clips | small_clips, options.filter(lambda kw: kw["strategy"] == "best_fit"), st.integers(2, 40))
def test_a_stream_has_the_same_properties(rows, kw, buffer):
    kw, gone = {k: v for k, v in kw.items() if k != "strategy"}, []
    stream = plan_stream(((s, n) for s, n, _ in rows), buffer, leave_out=lambda *clip: gone.append(clip), **kw)
    inside = []
    for window in stream:
        report = stream.report()
        assert window and report["clips"] - report["left_out"] - len(inside) <= buffer  # never more are in memory
        assert sum(rows[i][1] for i, _ in window) + kw["overhead_tokens"] <= kw["max_tokens"]
        end = -kw["gap_s"]
        for i, at in window:
            assert at >= end + kw["gap_s"] - TOLERANCE_S
            end = at + rows[i][0]
        assert window[0][1] == 0 and end <= kw["window_s"] + TOLERANCE_S
        inside += [i for i, _ in window]
    assert sorted(inside + [i for i, _ in gone]) == list(range(len(rows)))  # none lost, none twice
    for i, (duration, tokens, _) in enumerate(rows):
        assert (i in inside) == possible(duration, tokens, kw["window_s"], kw["max_tokens"] - kw["overhead_tokens"])
    report = stream.report()
    assert report["clips"] == len(rows) == report["joined"] + report["single"] + report["left_out"]
    assert sum(report["reasons"].values()) == report["left_out"] == len(gone) and all(reason for _, reason in gone)
    again = plan_stream(((s, n) for s, n, _ in rows), buffer, **kw)
    assert [i for window in again for i, _ in window] == inside


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30_000), st.integers(0, 443)), max_size=80), st.sampled_from([(30_000, 443), (30_000, 30_000), (20, 6), (7, 1000)]))
def test_the_compiled_way_gives_the_same_windows(rows, holds):
    rows = [(min(ms, holds[0]), min(n, holds[1])) for ms, n in rows]
    ms, tokens = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    order = np.argsort(-np.maximum(ms/holds[0], tokens/holds[1]), kind="stable")
    clips, sizes = flat(best_fit(order.tolist(), ms.tolist(), tokens.tolist(), *holds))
    for compile_from in (0, len(rows) + 1):
        found = pack(order, ms, tokens, *holds, compile_from=compile_from)
        assert np.array_equal(found[0], clips) and np.array_equal(found[1], sizes)
    slow = place(ms[order], tokens[order], *holds, LOOKS)  # the same loops, run by Python
    assert np.array_equal(order[np.argsort(slow, kind="stable")], clips)


def test_a_whole_plan_is_the_same_compiled_or_not(monkeypatch):
    rng = np.random.default_rng(0)
    duration_s, n_tokens = rng.uniform(.5, 12, 5000), rng.integers(1, 150, 5000)
    plans = []
    for compile_from in (0, 10_000):
        monkeypatch.setattr(pack, "__defaults__", (compile_from,))
        plans.append(plan_windows(duration_s, n_tokens, single_share=.2, overhead_tokens=5, seed=3))
    assert np.array_equal(plans[0].window, plans[1].window) and np.array_equal(plans[0].offset_s, plans[1].offset_s)


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch):
    import numba
    jit = numba.njit
    def refuse(function, cache=False):
        if cache: raise RuntimeError("cannot cache function: no locator available")
        return jit(function)
    monkeypatch.setattr(numba, "njit", refuse)
    compiled = concatenation.compiled_place.__wrapped__()
    assert compiled(np.array([20, 15, 10]), np.array([1, 1, 1]), 30, 448, LOOKS).tolist() == [0, 1, 0]


@settings(max_examples=100, deadline=None)
@given(clips, options)
def test_the_seed_decides(rows, kw):
    a, b = plan_of(rows, **kw), plan_of(rows, **kw)
    assert np.array_equal(a.window, b.window) and np.array_equal(a.offset_s, b.offset_s, equal_nan=True)
    assert a.report() == b.report()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1, 10), min_size=100, max_size=150), st.sampled_from(STRATEGIES), st.integers(0, 10**6))
def test_another_seed_is_another_plan(durations, strategy, seed):
    a, b = (plan_windows(durations, [10]*len(durations), strategy, seed=s, speaker=["Ada"]*len(durations)) for s in (seed, seed + 1))
    assert not np.array_equal(a.window, b.window)


@settings(max_examples=100, deadline=None)
@given(clips, st.floats(0, 1), st.integers(0, 100))
def test_speakers_and_single_clips_stay_apart(rows, single_share, seed):
    plan = plan_of(rows, strategy="same_speaker", seed=seed, single_share=single_share)
    for members in plan.windows():
        if len(members) > 1: assert len({rows[i][2] for i in members}) == 1 and rows[members[0]][2] in ("Ada", "Ben")
    assert plan.report()["single"] >= round(single_share*(plan.window >= 0).sum())
    assert all(len(w) == 1 for w in plan_of(rows, strategy="single").windows())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 3000), max_size=30), st.sampled_from(STRATEGIES[:3]), st.sampled_from([0, .01]))
def test_joining_keeps_every_sample(lengths_ms, strategy, gap_s):
    wavs = [np.full(ms*SR//1000, i + 1, dtype=np.float32) for i, ms in enumerate(lengths_ms)]
    plan = plan_windows([ms/1000 for ms in lengths_ms], [1]*len(wavs), strategy, window_s=4.0, gap_s=gap_s)
    for members in plan.windows():
        sound = join([wavs[i] for i in members], plan.offset_s[members], 4*SR)
        assert sound.shape == (4*SR,) and sound.dtype == np.float32
        for i in members: assert (sound == i + 1).sum() == len(wavs[i])
        assert (sound == 0).sum() == 4*SR - sum(len(wavs[i]) for i in members)


def test_one_bad_clip_does_not_take_others_along():
    "Peers drop the rest of the batch when a label is too long, or crash if the first clip is as long as the window."
    plan = plan_windows([30.0, 5.0] + [5.0]*62, [20, 900] + [20]*62)
    assert plan.report()["left_out"] == 1 and plan.reason[1] == "more than 448 label tokens" and plan.window[0] >= 0
    assert plan_windows([31.0, 5.0], [20, 20]).window.tolist() == [-1, 0]


def test_corpora_tensors_and_tables_are_taken():
    import datasets, pandas as pd
    given_s = [5.0, None, 7.0]
    expected = plan_windows(given_s, [1, 2, 3]).window.tolist()
    corpus = datasets.Dataset.from_dict(dict(duration_s=given_s, n=[1, 2, 3], speaker=["Ada", None, "Ada"]))
    assert plan_windows(corpus["duration_s"], corpus["n"], speaker=corpus["speaker"]).window.tolist() == expected
    assert plan_windows(torch.tensor([5.0, math.nan, 7.0]), torch.tensor([1, 2, 3])).window.tolist() == expected
    assert plan_windows(pd.Series(given_s), pd.Series([1, 2, 3])).window.tolist() == expected
    speakers = plan_windows(corpus["duration_s"], corpus["n"], "same_speaker", speaker=corpus["speaker"])
    assert speakers.windows() in ([[0, 2]], [[2, 0]])
    assert join([torch.ones(10)], torch.tensor([0.0]), 20).sum() == 10


def test_nothing_in_nothing_out():
    plan = plan_windows([], [])
    assert isinstance(plan, Plan) and plan.windows() == [] and plan.fill == 0 and plan.report()["clips"] == 0
    assert plan_windows([None], [1]).windows() == []


def test_fill_and_time_on_clips_like_common_voice():
    "Log-normal durations with a median of 4.94 s; one clip per window fills 17.7 % of 30 s."
    duration_s = 4.94*np.exp(.38*np.random.default_rng(1).standard_normal(100_000))
    fill, start = {}, time.perf_counter()
    for strategy in STRATEGIES[:3]: fill[strategy] = plan_windows(duration_s, np.round(4*duration_s), strategy).fill
    assert time.perf_counter() - start < 15  # about half a second; a quadratic search would take minutes
    assert fill["single"] == pytest.approx(.177, abs=.002) and fill["in_order"] == pytest.approx(.898, abs=.005) and fill["best_fit"] >= .99


def test_a_million_clips():
    "About a second on one core, after compiling."
    duration_s = np.minimum(4.94*np.exp(.38*np.random.default_rng(1).standard_normal(1_000_000)), 30)
    n_tokens = np.round(4*duration_s)
    plan_windows(duration_s[:60_000], n_tokens[:60_000])  # compiles
    start = time.process_time()
    plan = plan_windows(duration_s, n_tokens, overhead_tokens=5)
    assert time.process_time() - start < 4  # the machine may be shared
    assert plan.fill >= .99 and plan.report()["left_out"] == 0 and (np.bincount(plan.window) > 0).all()


def test_a_stream_is_full_and_takes_no_memory():
    def clips(n):
        rng = np.random.default_rng(1)
        for _ in range(n//1000): yield from zip(np.minimum(4.94*np.exp(.38*rng.standard_normal(1000)), 30).tolist(), itertools.repeat(20))
    stream = plan_stream(clips(60_000), buffer=3000, overhead_tokens=5)
    assert sum(len(w) for w in stream) == 60_000 and stream.report()["fill"] >= .98
    peaks = []
    for n in (6000, 24_000):
        stream = iter(plan_stream(clips(n), buffer=2000))
        tracemalloc.start(); list(map(len, stream)); peaks.append(tracemalloc.get_traced_memory()[1]); tracemalloc.stop()
    assert peaks[1] < 1.3*peaks[0] + 200_000


def test_clips_that_nobody_completes_do_not_block_a_stream():
    "Every window holds one of them and is half empty."
    stream = plan_stream([(16.0, 10)]*1000, buffer=20)
    assert sum(len(w) for w in stream) == 1000 and stream.report()["windows"] == 1000


@pytest.mark.parametrize("wrong, remedy", [
    (dict(buffer=1), "100_000"), (dict(window_s=0), "Whisper's is 30"), (dict(overhead_tokens=448), "leave room"),
    (dict(clips=[5.0]), "give such pairs"), (dict(clips=[(5.0,)]), "give such pairs"), (dict(clips=[("five", 1)]), "must be numbers")])
def test_a_senseless_stream_is_refused(wrong, remedy):
    with pytest.raises(UserError, match=remedy): list(plan_stream(**(dict(clips=[(5.0, 20)]) | wrong)))


def test_evaluation_is_not_joined_unless_the_call_says_so():
    "A peer joins its evaluation set along with the rest."
    corpus = load_corpus("common_voice:data/accents")
    def joined(split, **kw):
        clips = select(corpus, {"split": split}).select(range(12))
        return clips, join_corpus(clips, plan_windows(clips["duration_s"], [0]*12, "in_order", window_s=40.0), **kw)
    with pytest.raises(UserError, match="12 of the clips belong to the test split.*allow_evaluation=True"): joined("test")
    for kw in ({}, dict(allow_evaluation=True)):
        with pytest.raises(UserError, match="chooses the checkpoint"): joined("validation", **kw)
    clips, long = joined("test", allow_evaluation=True)
    assert len(long) == 1 and long[0]["split"] == "test" and long[0]["text"] == " ".join(clips["text"]) and long.features == clips.features
    assert len(load_audio(long[0]["audio"])) == pytest.approx(sum(clips["duration_s"])*SR, abs=12*SR*SLACK_S)
    assert joined("train")[1][0]["split"] == "train"
    with pytest.raises(UserError, match="plan is of 1 clips, the corpus has 12"): join_corpus(clips, plan_windows([5], [0]), True)


@pytest.mark.parametrize("wrong, remedy", [
    (dict(strategy="bestfit"), "Did you mean `best_fit`?"), (dict(strategy="same_speaker"), "choose `best_fit`"),
    (dict(strategy="same_speaker", speaker=["Ada"]), "one per clip"), (dict(window_s=math.nan), "Whisper's is 30"),
    (dict(max_tokens=math.inf), "Whisper's is 448"), (dict(max_tokens=0), "Whisper's is 448"), (dict(overhead_tokens=448), "leave room"),
    (dict(gap_s=-1), "clip behind clip"), (dict(single_share=1.5), "from 0 to 1"), (dict(n_tokens=[1]), "one of each per clip"),
    (dict(duration_s=[[5.0, 6.0]]), "one number per clip"), (dict(duration_s=["5 s", "6 s"]), "must be numbers")])
def test_senseless_options_are_refused(wrong, remedy):
    with pytest.raises(UserError, match=remedy.replace("?", r"\?")): plan_windows(**(dict(duration_s=[5.0, 6.0], n_tokens=[20, 20]) | wrong))


def test_a_clip_much_longer_than_its_place_is_refused():
    extra = int(SLACK_S*SR)
    assert join([np.ones(SR + extra), np.ones(SR)], [0, 1], 2*SR).max() == 2  # over the edge, but not lost
    with pytest.raises(UserError, match="check_corpus"): join([np.ones(SR + extra + 1), np.ones(SR)], [0, 1], 2*SR)
    with pytest.raises(UserError, match="check_corpus"): join([np.ones(2*SR + extra + 1)], [0], 2*SR)


stage = st.fixed_dictionaries({}, optional=dict(
    share=st.floats(allow_nan=True) | st.sampled_from([.5, 1, "1", None, True]), batch_windows=st.integers(-1, 9) | st.just("4"),
    seconds=st.sampled_from([None, 3.5, 3.513, 30, 31, -1, "3.5", True, math.nan]) | st.floats(), second=st.just(3)))


@settings(max_examples=300, deadline=None)
@given(st.none() | st.just("auto") | st.text(max_size=5) | st.lists(stage | st.integers(), max_size=3), st.lists(durations, max_size=20))
def test_a_schedule_is_sound_or_refused(windows, duration_s):
    try: stages = resolve_windows(windows, duration_s, 30.0, 4)
    except UserError: return
    assert sum(s.share for s in stages) == pytest.approx(1) and stages[-1].seconds == 30
    assert all(isinstance(s, Stage) and 0 < s.seconds <= 30 and s.batch_windows >= 1 for s in stages)
    assert all(round(s.seconds*50) == pytest.approx(s.seconds*50) for s in stages)


def test_auto_holds_98_percent_in_the_measured_batches():
    duration_s = np.linspace(1, 3.4, 100)
    assert resolve_windows("auto", duration_s, 30.0, 4) == [Stage(.7, 3.5, 16), Stage(.3, 30.0, 4)]
    assert resolve_windows("auto", duration_s/2.4, 30.0, 4)[0] == Stage(.7, 1.5, 32)
    assert resolve_windows("auto", duration_s, 5.0, 8) == [Stage(1.0, 5.0, 8)]  # a model whose own window is short
    long = [*duration_s, *[20.0]*2]
    assert np.mean(np.array(long) <= resolve_windows("auto", long, 30.0, 4)[0].seconds) >= .98


def test_the_encoder_of_transformers_reads_a_cut_table_of_positions():
    "What short windows stand on: the first rows of the 30 s table are the table of a shorter window."
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder
    small = dict(d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=32)
    whole, short = (WhisperEncoder(WhisperConfig(**small, max_source_positions=n)).embed_positions.weight for n in (1500, 175))
    assert torch.equal(whole[:175], short)
