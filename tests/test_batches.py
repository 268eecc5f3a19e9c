"What a training run is fed: labels with one start token, the clips' real times, and the same batches in any process and after any stop."
import functools, math, os, pickle, subprocess, sys

import numpy as np, pytest, torch
from datasets import concatenate_datasets
from hypothesis import given, settings, strategies as st

from conftest import ROOT
from whisper_tutorial import UserError
from whisper_tutorial.data.batches import NEAR_S, TrainingWindows, after_previous, batch_loader, clip_before
from whisper_tutorial.data.concatenation import SLACK_S, Stage, resolve_windows
from whisper_tutorial.data.corpus import load_corpus, make_corpus, select, with_column
from whisper_tutorial.speech.text import END, NO_TIMESTAMPS, START, decode_segments, decode_text, encode_label, load_tokenizer

FULL = [Stage(1.0, 30.0, 4)]
NOISES = dict(token_noise=.1, timestamps=.5, specaugment="double", augment=["speed", "gain"], bpe_dropout=.1)


@functools.cache
def small(): return load_tokenizer("data/nano")


@functools.cache
def accents(split="train", n=None):
    corpus = select(load_corpus("common_voice:data/accents"), {"split": split})
    return corpus.select(range(n or len(corpus)))


def made(corpus=None, stages=FULL, steps=6, tokenizer=None, **kw):
    return TrainingWindows(corpus or accents(), tokenizer or small(), stages, steps, **(dict(language="en") | kw))


def same(a, b): return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def token(name, tokenizer=None): return (tokenizer or small()).convert_tokens_to_ids(name)


# mistake 1 of the field: <|startoftranscript|> twice

@pytest.mark.parametrize("kw", [{}, NOISES, dict(single_share=0.), dict(dialect=None, timestamps=1.)], ids=["plain", "noises", "joined", "times"])
def test_exactly_one_start_token(kw):
    "Collators compare with `bos_token_id`, which is <|endoftext|>, so their cut never happens and the model adds a second one."
    from transformers.models.whisper.modeling_whisper import shift_tokens_right
    windows, start = made(**kw), token(START)
    for i in range(len(windows)):
        batch = windows[i]
        assert (batch["decoder_input_ids"] == start).sum(1).eq(1).all() and (batch["decoder_input_ids"][:, 0] == start).all()
        assert not (batch["labels"] == start).any()
        assert (batch["labels"] == token(END)).sum(1).eq(1).all()
        if kw.get("token_noise"): continue  # the model would read the very same, were it left to shift the labels itself
        reads = shift_tokens_right(batch["labels"], small().pad_token_id, start)
        assert torch.equal(reads, batch["decoder_input_ids"])


def test_padded_to_the_longest_of_the_batch_and_not_trained_on():
    windows = made(single_share=1.)
    for i in range(len(windows)):
        labels = windows[i]["labels"]
        n = (labels != -100).sum(1)
        assert labels.shape[1] == n.max() < 448
        for row, k in zip(labels, n): assert (row[:k] != -100).all() and (row[k:] == -100).all()


# mistake 2: sound and text paired wrongly from the eleventh clip on

def test_sound_and_text_of_a_window_belong_together():
    windows, corpus = made(single_share=0.), accents()
    for number in range(8):
        members = windows.members(number)
        mel, label = windows.window(30.0, members)
        assert decode_text(small(), label) == " ".join(corpus[i]["text"] for i, *_ in members)
        for i, at, _ in members:
            alone, _ = windows.window(30.0, [(i, at)])
            a, b = round(at*100) + 20, round((at + corpus[i]["duration_s"])*100) - 20  # off the edges, where neighbours are heard
            assert np.median(np.abs(mel[:, a:b] - alone[:, a:b])) < .05


# mistake 5: labels over 448 tokens that take others along

@pytest.mark.parametrize("kw", [{}, dict(timestamps=1.), dict(timestamps=.5, previous_text=1., bpe_dropout=.5), dict(strategy="in_order")])
def test_no_label_is_longer_than_the_decoder_and_no_clip_is_lost(kw):
    corpus = accents(n=60)
    long = corpus.map(lambda row, i: {"text": row["text"]*(60 if i == 7 else 1 + i % 9)}, with_indices=True)
    long = with_column(with_column(long, "recording", ["tape"]*60), "start_s", np.arange(60)*5.0)
    windows = made(long, steps=30, single_share=.2, **kw)
    for filled in windows.filled: assert filled["clips"] + filled["waiting"] + filled["left_out"] == 60
    assert windows.filled[0]["left_out"] == 1 and "more than" in next(iter(windows.reasons[0]))
    inside = []
    for number in range(len(windows.ends) - 1):
        members = windows.members(number)
        assert len(windows.label(30.0, members, number)) <= 448
        inside += [i for i, *_ in members]
        if len(inside) == 59: break
    assert sorted(inside) == [i for i in range(60) if i != 7]  # an epoch: none lost, none twice


# times

@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, .013, .2]), st.sampled_from(["single", "in_order", "best_fit", "same_speaker"]))
def test_decoding_the_label_gives_back_transcripts_and_times(seed, gap_s, strategy):
    corpus = accents(n=40)
    windows = made(corpus, steps=2, seed=seed, gap_s=gap_s, strategy=strategy, timestamps=1., single_share=0.)
    for number in range(len(windows.ends) - 1):
        members = windows.members(number)
        label = windows.label(30.0, members, number)
        assert token(NO_TIMESTAMPS) not in label and len(label) <= 448
        segments = decode_segments(small(), label)
        assert [s[2] for s in segments] == [corpus[i]["text"] for i, *_ in members]
        for (begin, end, _), (i, at, _) in zip(segments, members):
            assert begin == pytest.approx(at, abs=.0101) and end == pytest.approx(at + corpus[i]["duration_s"], abs=.0111) and end <= 30
        times = [t for s in segments for t in s[:2]]
        assert times == sorted(times)


def test_the_real_vocabulary_has_the_same_times():
    windows = made(tokenizer=load_tokenizer(), timestamps=1., single_share=0.)
    members = windows.members(0)
    segments = decode_segments(load_tokenizer(), windows.label(30.0, members, 0))
    assert [s[2] for s in segments] == [accents()[i]["text"] for i, *_ in members]


def test_a_share_of_the_windows_has_times():
    windows = made(steps=100, timestamps=.3)
    n = len(windows.ends) - 1
    timed = [token(NO_TIMESTAMPS) not in windows.label(30.0, windows.members(w), w) for w in range(n)]
    assert .22 < np.mean(timed) < .38


# previous text

def tape(rows):
    return make_corpus([dict(id=str(i), text=t, duration_s=d, recording=r, start_s=s, language="en") for i, (t, r, s, d) in enumerate(rows)], "test")


def test_the_clip_before_is_the_one_that_ended_before():
    corpus = tape([("c", "a", 20., 5.), ("a", "a", 0., 10.), ("b", "a", 10., 5.), ("x", "b", 0., 5.), ("?", None, 1., 5.), ("?", "a", None, 5.)])
    assert clip_before(corpus).tolist() == [2, -1, 1, -1, -1, -1]
    assert clip_before(tape([("a", "a", 0., 10.), ("b", "a", 10. + NEAR_S, 5.), ("c", "a", 46. + NEAR_S, 5.)])).tolist() == [-1, 0, -1]  # long ago
    corpus = tape([("a", "1", 0., 2.), ("b", "1", 2., 2.), ("x", "1", .5, 1.), ("y", "1", 2.5, 1.)])
    assert clip_before(with_column(corpus, "source", ["x", "x", "y", "y"])).tolist() == [-1, 0, -1, 2]  # two recordings of one name
    assert clip_before(tape([("a", "a", 0., 10.), ("b", "a", 10. - SLACK_S/2, 5.), ("c", "a", 12., 5.)])).tolist() == [-1, 0, -1]  # c lies on b


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300), st.integers(0, 300), st.integers(8, 448))
def test_the_text_before_never_costs_a_token_of_the_label(previous, n, max_tokens):
    label = [token(START), *range(n), token(END)][:max_tokens]
    whole = after_previous(small(), label, previous, max_tokens)
    assert whole[len(whole) - len(label):] == label and len(whole) <= max_tokens
    before = whole[:len(whole) - len(label)]
    assert not before or (before[0] == token("<|startofprev|>") and 2 <= len(before) <= max_tokens//2)
    assert before[1:] == (small()(" " + previous.strip(), add_special_tokens=False, split_special_tokens=True).input_ids[-len(before) + 1:] if before else [])


def test_the_text_before_is_read_and_not_said():
    story = with_column(with_column(accents(n=40), "recording", ["tape"]*40), "start_s", np.cumsum([0, *accents(n=40)["duration_s"]])[:-1])
    windows, start, found = made(story, steps=40, strategy="in_order", single_share=.3, previous_text=.5), token(START), 0
    texts = " ".join(t.strip() for t in story["text"])
    for i in range(len(windows)):
        batch = windows[i]
        for row, says, w in zip(batch["decoder_input_ids"].tolist(), batch["labels"].tolist(), windows.windows_of(i)[1]):
            first, clips = row.index(start), [m[0] for m in windows.members(w)]
            assert row.count(start) == 1 and says[:first] == [-100]*first and says[first] == token("<|en|>")
            if not first: continue
            found += 1
            before = decode_text(small(), row[1:first]); assert row[0] == token("<|startofprev|>")
            assert f"{before} {story[clips[0]]['text'].strip()}" in texts  # it ends where the window begins
    assert .3 < found/(len(windows.ends) - 1) < .6
    assert not any(made(story, previous_text=0.)[0]["decoder_input_ids"].eq(token("<|startofprev|>")).flatten())


def test_what_a_window_says_is_not_read_before():
    "Best fit may put a clip and its predecessor into one window, in any order."
    story = with_column(with_column(accents(n=12), "recording", ["tape"]*12), "start_s", np.cumsum([0, *accents(n=12)["duration_s"]])[:-1])
    windows = made(story, steps=30, single_share=0., previous_text=1.)
    for w in range(len(windows.ends) - 1):
        clips = [m[0] for m in windows.members(w)]
        before = windows._previous(clips)
        assert not any(story[i]["text"].strip() in before for i in clips)


# the same batches in any process, in any cut, after any stop

def test_any_number_of_workers_gives_the_same_batches():
    stages = resolve_windows("auto", accents()["duration_s"], 30.0, 2)
    expected = [made(stages=stages, **NOISES)[i] for i in range(6)]
    for workers in (0, 1, 2):
        found = list(batch_loader(made(stages=stages, cache_bytes=2**20*workers, **NOISES), workers))
        assert len(found) == 6 and all(map(same, expected, found))


def test_begun_in_the_middle_of_an_epoch():
    windows = made(steps=8, **NOISES)
    expected = list(batch_loader(windows))
    for first in (3, 7, 8):
        found = list(batch_loader(made(steps=8, **NOISES), first=first))
        assert len(found) == 8 - first and all(map(same, expected[first:], found))
    assert same(windows[5], expected[5]) and same(windows[2], expected[2])  # in any order


def test_the_trainer_skips_to_the_same_batch():
    "As a run does that is continued from its checkpoint."
    from accelerate import skip_first_batches
    windows = made(steps=6, **NOISES)
    loader = torch.utils.data.DataLoader(made(steps=6, **NOISES), batch_size=1, num_workers=2, collate_fn=lambda items: items[0])
    skipped = list(skip_first_batches(loader, 4))
    assert all(map(same, [windows[4], windows[5]], skipped)) and len(skipped) == 2


def test_accumulation_cuts_the_same_windows():
    kw = {k: v for k, v in NOISES.items() if k != "token_noise"}  # it is drawn for a micro-batch
    whole, parts = made(**kw), made(micro_batches=4, **kw)
    assert len(parts) == 4*len(whole)
    for i in range(len(whole)):
        assert torch.equal(torch.cat([parts[4*i + k]["input_features"] for k in range(4)]), whole[i]["input_features"])


def test_a_stage_may_be_too_short_for_a_step():
    stages = [Stage(.04, 3., 4), Stage(.04, 5., 4), Stage(.52, 10., 4), Stage(.4, 30., 4)]
    windows = made(stages=stages, steps=2)
    assert [f["steps"] for f in windows.filled] == [0, 0, 1, 1] and len(windows) == 2
    assert [windows[i]["input_features"].shape[2] for i in range(2)] == [1000, 3000]


def test_each_epoch_has_other_neighbours_and_the_seed_decides():
    windows = made(steps=100, single_share=0.)
    n, epochs, pairs = len(accents()), [], []
    flat = windows.clip.tolist()
    for e in range(3):
        assert sorted(flat[e*n:(e + 1)*n]) == list(range(n))  # each epoch holds every clip once
        pairs.append({(a, b) for a, b in zip(flat[e*n:(e + 1)*n], flat[e*n + 1:(e + 1)*n])})
    assert len(pairs[0] & pairs[1])/n < .02
    assert flat != made(steps=100, single_share=0., seed=1).clip.tolist() and flat == made(steps=100, single_share=0.).clip.tolist()


SPAWN = """
import json, sys, torch, multiprocessing
sys.path.insert(0, "tests")
from test_batches import made, same
from whisper_tutorial.data.batches import batch_loader
if __name__ == "__main__":
    windows = made(steps=3)
    loader = batch_loader(windows, 2)
    loader.multiprocessing_context = "spawn"  # as on a Mac
    print(all(map(same, [windows[i] for i in range(3)], loader)))
"""


def test_workers_that_are_started_afresh(tmp_path, everything):
    if not everything: pytest.skip("make test-all")
    file = tmp_path/"spawn.py"; file.write_text(SPAWN)
    done = subprocess.run([sys.executable, "-W", "ignore", file], cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": "tests"})
    assert done.stdout.strip() == "True", done.stderr


def test_a_corpus_of_bytes_is_not_copied_into_memory():
    "A corpus from the hub holds its sounds as bytes; a run must not make Python objects of all of them."
    import tracemalloc
    noise = np.random.default_rng(0).bytes(100_000)
    corpus = make_corpus([dict(id=str(i), audio=noise, text="Yes.", duration_s=2., language="en") for i in range(200)], "test")  # 20 MB
    tracemalloc.start(); windows = made(corpus, steps=10); peak = tracemalloc.get_traced_memory()[1]; tracemalloc.stop()
    assert peak < 3e6
    windows._wavs[0] = np.zeros(10**6); windows._cached = 1
    assert pickle.loads(pickle.dumps(windows))._wavs == {} and windows._cached == 1


def test_a_million_clips_are_planned_in_little_memory():
    import tracemalloc
    n = 200_000
    corpus = make_corpus([dict(id=str(i), text="Yes.", duration_s=2. + i % 7, language="en") for i in range(1000)], "test")
    corpus = concatenate_datasets([corpus]*(n//1000))
    windows = made(corpus, [Stage(1.0, 30.0, 64)], steps=10)
    tracemalloc.start()
    planned = windows._plan_epoch(windows.stages[0], [0, 0, 0])
    peak = tracemalloc.get_traced_memory()[1]; tracemalloc.stop()
    assert sum(a.nbytes for a in planned[:2]) == 8*n and peak < 250*n  # bytes: a list of tuples would be more before it is filled


# noises

def test_speed_is_drawn_before_the_plan():
    windows = made(steps=8, augment=[{"speed": {"factor": [.5, 2.0], "p": 1.0}}], timestamps=1., single_share=0.)
    speeds = []
    for w in range(len(windows.ends) - 1):
        members = windows.members(w)
        for (i, at, speed), behind in zip(members, [m[1] for m in members[1:]] + [30.]):
            assert at + accents()[i]["duration_s"]/speed <= behind + .001
            speeds.append(speed)
        if w < 3: windows.window(30.0, members, w)  # `join` refuses what is longer than its place
    assert min(speeds) < .6 and max(speeds) > 1.8


def test_a_clip_that_fits_only_at_its_own_speed_keeps_it():
    long = make_corpus([dict(id="a", text="a", duration_s=29.5, language="en")], "test")  # only planned, not heard
    windows = made(long, steps=5, augment=[{"speed": {"factor": [.5, .9], "p": 1.0}}])
    assert windows.filled[0]["left_out"] == 0 and windows.speed.tolist() == [1.]*20


def test_what_only_fits_when_played_faster_waits():
    lengths = [3.4 + .02*i for i in range(60)] + [31.]
    corpus = make_corpus([dict(id=str(i), text="a", duration_s=s, language="en") for i, s in enumerate(lengths)], "test")
    windows = made(corpus, [Stage(.5, 3.5, 4), Stage(.5, 30., 4)], steps=20, augment=[{"speed": {"factor": [.8, 1.25], "p": 1.0}}])
    for f in windows.filled: assert f["clips"] + f["waiting"] + f["left_out"] == 61
    assert windows.filled[0]["waiting"] == 54 and windows.filled[1]["left_out"] == 1
    assert 60 not in windows.clip  # left out of the account is left out of the windows


LOUD = {"gain": {"gain_db": [-20, 6], "p": 1.0}}


def test_every_noise_is_heard_another_one_in_each_window():
    members = [(5, 0.)]
    clean = made().window(30.0, members, 3)
    for noise in (dict(augment=[LOUD]), dict(specaugment="double")):
        windows = made(**noise)
        one, two, again = (windows.window(30.0, members, n)[0] for n in (3, 4, 3))
        assert not np.array_equal(one, clean[0]) and not np.array_equal(one, two) and np.array_equal(one, again), noise
        assert not np.array_equal(made(seed=1, **noise).window(30.0, members, 3)[0], one), noise
    two_clips = made(augment=[LOUD]).window(30.0, [(5, 0.), (5, 10.)], 3)[0]
    assert not np.allclose(two_clips[:, :100], two_clips[:, 1000:1100], atol=.01)  # each clip is drawn for


def test_holes_are_cut_into_sound_and_not_into_silence():
    members, sound = [(5, 0.), (6, 4.)], round((4 + accents()[6]["duration_s"])*100)
    clean, holes = made().window(30.0, members, 3)[0], made(specaugment="double")
    changed = np.zeros(3000, bool)
    for number in range(40): changed |= (holes.window(30.0, members, number)[0] != clean).any(axis=0)
    assert changed[:sound - 1].all() and not changed[sound + 1:].any()


def test_dropout_cuts_the_same_text_otherwise():
    plain, other, members = made(), made(bpe_dropout=.5), [(5, 0.)]
    label, again, third = (other.label(30.0, members, n) for n in (3, 3, 4))
    assert label == again and label != third and label != plain.label(30.0, members, 3)
    for ids in (label, third): assert decode_text(small(), ids) == accents()[5]["text"] and ids.count(token(START)) == 1


def test_times_follow_the_speed():
    windows = made(steps=4, augment=[{"speed": {"factor": [.6, 1.6], "p": 1.0}}], timestamps=1., single_share=0., gap_s=.25)
    for w in range(len(windows.ends) - 1):
        members = windows.members(w)
        for (i, at, speed), (begin, end, _) in zip(members, decode_segments(small(), windows.label(30.0, members, w)), strict=True):
            assert abs(begin - at) <= .0101 and abs(end - at - accents()[i]["duration_s"]/speed) <= .0115


@pytest.mark.parametrize("stated", [1., 9.])
def test_a_wrong_duration_is_named(stated):
    corpus = with_column(accents(n=1), "duration_s", [stated])
    with pytest.raises(UserError, match=f"`{corpus[0]['id']}` lasts .* says {stated:.2f}.*check_corpus"): made(corpus)[0]


def test_a_plan_of_many_epochs_takes_as_long_as_its_windows(monkeypatch):
    "Each epoch is looked at once: the windows found so far are not counted again for each."
    seen, plan = [], TrainingWindows._plan_epoch
    class Sizes(np.ndarray):
        def __len__(self): seen.append(1); return super().__len__()
    def counted(self, *args):
        clip, at, speed, sizes, reasons = plan(self, *args)
        return clip, at, speed, sizes.view(Sizes), reasons
    monkeypatch.setattr(TrainingWindows, "_plan_epoch", counted)
    windows = made(accents(n=20), [Stage(1., 30., 16)], steps=60, single_share=0.)
    assert windows.filled[0]["epochs"] > 300 and len(seen) < 4*windows.filled[0]["epochs"]


@pytest.mark.parametrize("kw", [{}, NOISES, dict(strategy="same_speaker"), dict(language_like="de", language="gsw")])
def test_every_clip_is_heard_as_often_as_there_are_epochs(kw):
    windows = made(steps=None, epochs=3, **kw)
    heard = np.bincount(windows.clip, minlength=len(accents()))
    assert heard.min() >= 2 and heard.max() <= 4 and abs(heard.mean() - 3) < .1
    half = made(stages=[Stage(.5, 5., 8), Stage(.5, 30., 4)], steps=None, epochs=1.5, **kw)
    steps = sum(stage["steps"] for stage in half.filled)
    assert steps == pytest.approx(len(windows)/2, rel=.02)  # other clips are left single in another stage


def test_dropout_never_bursts_a_label():
    corpus = accents(n=30).map(lambda row: {"text": row["text"]*4})
    windows = made(corpus, steps=20, max_tokens=120, single_share=0., bpe_dropout=.9)
    lengths = [len(windows.label(30.0, windows.members(w), w)) for w in range(len(windows.ends) - 1)]
    assert max(lengths) <= 120


def test_augmentation_is_off_where_it_measures():
    "As the validation loss does: a window without a number."
    plain, noisy = made(), made(**NOISES)
    (mel, label), (other, same_label) = (w.window(30.0, [(5, 0.)]) for w in (plain, noisy))
    assert np.array_equal(mel, other) and label == same_label == encode_label(small(), accents()[5]["text"], "en")


# what is refused

@pytest.mark.parametrize("split", ["test", "validation"])
def test_evaluation_data_are_not_trained_on(split):
    leaky = concatenate_datasets([accents(n=20), accents(split).select([0])])
    for strategy in ("single", "best_fit"):
        with pytest.raises(UserError, match=f"1 of the clips belong to the {split} split"): made(leaky, strategy=strategy)
    TrainingWindows(accents(split), small(), [], 0).window(30.0, [(0, 0.)])  # measured, they are


@pytest.mark.parametrize("wrong, remedy", [
    (dict(timestamps=1.5), "from 0 to 1"), (dict(previous_text=-1), "from 0 to 1"), (dict(bpe_dropout=math.nan), "from 0 to 1"),
    (dict(previous_text=.5), "set it to 0"), (dict(specaugment="dubble"), "Did you mean `double`?"), (dict(augment=["nois"]), "Did you mean `noise`?"),
    (dict(stages=[Stage(1.0, 40.0, 4)], timestamps=.5), "set `timestamps` to 0"), (dict(stages=[Stage(1.0, 1.0, 4)]), "more seconds"),
    (dict(language="klingon"), "knows no language"), (dict(dialect="ar-ma"), "ar-ma"), (dict(strategy="bestfit"), "Did you mean `best_fit`?"),
    (dict(micro_batches=8), "gradient_accumulation"), (dict(max_tokens=8), "check_corpus"), (dict(gap_s=-1), "clip behind clip")])
def test_senseless_options_are_refused(wrong, remedy):
    with pytest.raises(UserError, match=remedy.replace("?", r"\?")): made(**wrong)


def test_clips_that_cannot_be_trained_on_are_accounted_for():
    rows = [("ok", 5.), ("ok", 30.), ("long", 31.), ("none", None), ("zero", 0.), ("minus", -2.), ("ok "*2000, 5.)]
    corpus = make_corpus([dict(id=str(i), text=t, language="en") for i, (t, _) in enumerate(rows)], "test")
    corpus = with_column(corpus, "duration_s", [s for _, s in rows])
    windows = made(corpus, [Stage(.5, 10.0, 1), Stage(.5, 30.0, 1)], steps=2)
    short, full = windows.filled
    assert (short["clips"], short["waiting"], short["left_out"]) == (1, 1, 5) and (full["clips"], full["left_out"]) == (2, 5)
    assert sum(windows.reasons[1].values()) == 5 and windows.reasons[1]["unknown duration"] == 1
    assert windows.reasons[1]["duration not positive"] == 2 and windows.reasons[1]["longer than the window of 30 s"] == 1


def test_real_speech():
    "Seconds of 8 kHz WAV, FLAC and stereo, short and long."
    folder = os.environ.get("WHISPER_TUTORIAL_SPEECH")
    if not folder: pytest.skip("WHISPER_TUTORIAL_SPEECH names no folder of real speech")
    corpus = select(load_corpus(f"folder:{folder}"), {"split": "train"})
    windows = TrainingWindows(corpus, load_tokenizer(), resolve_windows("auto", corpus["duration_s"], 30.0, 4), 6, timestamps=.5, seed=1)
    for filled in windows.filled: assert filled["clips"] + filled["waiting"] + filled["left_out"] == len(corpus)
    for batch in batch_loader(windows, 1): assert batch["input_features"].isfinite().all() and batch["labels"].shape[1] < 448
