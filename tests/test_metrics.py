"Error rates, intervals and tests: against jiwer, scipy, sacrebleu and openai-whisper, in simulated worlds, on real transcripts, with bad input."
import csv, json, multiprocessing, os, random, time, tracemalloc, warnings
from pathlib import Path

import jiwer, numpy as np, pandas as pd, pytest, sacrebleu, scipy.stats
from hypothesis import given, settings, strategies as st

from whisper_tutorial.core import UserError
from whisper_tutorial.evaluation.metrics import (CER, WER, add_up, align_words, bootstrap, calibration, casing_and_punctuation, chrf_of,
                                                 compare_counts, compression_ratio, error_counts, forgetting, group_table,
                                                 hallucination_rates, hallucinations, language_accuracy, longest_loop, measure,
                                                 paired_test, ratio_intervals, resampled, same_clips, score, score_groups, share_right,
                                                 sign_flips, translation_counts, translation_score, translation_test, with_verdicts, word_alignment,
                                                 word_confidence)
from whisper_tutorial.speech.text import normalize

SPEECH = os.environ.get("WHISPER_TUTORIAL_SPEECH")
real_speech = pytest.mark.skipif(not SPEECH, reason="WHISPER_TUTORIAL_SPEECH names no folder of real speech")
pytestmark = pytest.mark.filterwarnings("ignore:.*for these speakers only", "ignore:there is one clip")
RATES = ("wer_raw", "wer_norm", "cer_raw", "cer_norm")


def misheard(texts, seed=0, rate=.2):
    "What a bad model might write: words replaced, left out, added; commas gone, capitals lost."
    rng, words = random.Random(seed), sorted({w for text in texts for w in text.split()})
    def one(text):
        said = [w for w in text.split() if rng.random() > rate/3]
        said = [w if rng.random() > rate/3 else rng.choice(words) for w in said]
        said = [v for w in said for v in ([w] if rng.random() > rate/3 else [w, rng.choice(words)])]
        return " ".join(said).replace(",", "") if rng.random() < .5 else " ".join(said).lower()
    return [one(text) for text in texts]


@pytest.fixture(scope="module")
def transcripts():
    "language → the real transcripts and their speakers"
    rows = list(csv.DictReader((Path(SPEECH)/"metadata.csv").open(encoding="utf-8")))
    picked = {"en": [r for r in rows if r["language"].startswith("en")][-600:], "sw": [r for r in rows if r["language"].startswith("sw")]}
    assert all(picked.values()), {r["language"] for r in rows}
    return picked


# ---- the same numbers as others

@real_speech
@pytest.mark.parametrize("language", ["en", "sw"])
def test_rates_are_those_of_jiwer_on_real_transcripts(transcripts, language):
    said = [r["transcription"] for r in transcripts[language]]
    heard = misheard(said)
    found = score(said, heard, language, [r["speaker"] for r in transcripts[language]])
    normal = [[normalize(text, language) for text in texts] for texts in (said, heard)]
    for name, pair in dict(raw=(said, heard), norm=normal).items():
        assert found[f"wer_{name}"] == pytest.approx(jiwer.wer(*pair)) and found[f"cer_{name}"] == pytest.approx(jiwer.cer(*pair))
        assert found[f"wer_{name}"] > .1 and found[f"wer_{name}_ci95"][0] < found[f"wer_{name}"] < found[f"wer_{name}_ci95"][1]
    theirs = jiwer.process_words(*normal)
    words = theirs.hits + theirs.substitutions + theirs.deletions
    for kind in ("substitutions", "deletions", "insertions"): assert found[kind] == pytest.approx(getattr(theirs, kind)/words)
    assert found["wer_norm"] == pytest.approx(found["substitutions"] + found["deletions"] + found["insertions"])


@real_speech
def test_the_normalised_rate_is_that_of_openai_whisper_on_real_transcripts(transcripts):
    from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer
    theirs = EnglishTextNormalizer()
    said = [r["transcription"] for r in transcripts["en"]]
    heard = misheard(said)
    assert score(said, heard)["wer_norm"] == pytest.approx(jiwer.wer([theirs(t) for t in said], [theirs(t) for t in heard]))
    theirs = BasicTextNormalizer()
    said = [r["transcription"] for r in transcripts["sw"] if not set(r["transcription"]) & set("'’‘-")]  # there we differ on purpose
    heard = misheard(said)
    assert len(said) > 10
    assert score(said, heard, "sw")["wer_norm"] == pytest.approx(jiwer.wer(*[[" ".join(theirs(t).split()) for t in x] for x in (said, heard)]))


def test_blocks_of_clips_change_nothing():
    rng = random.Random(0)
    said, heard = ([" ".join(rng.choices("abcde", k=rng.randrange(1, 9))) for _ in range(2_500)] for _ in range(2))
    counts = error_counts(said, heard)
    theirs = jiwer.process_words(said, heard)
    assert counts.sum(0).tolist() == [theirs.hits, theirs.substitutions, theirs.deletions, theirs.insertions]
    assert counts[2_400].tolist() == error_counts(said[2_400:2_401], heard[2_400:2_401])[0].tolist()


TEXT = st.text(st.sampled_from("ab ,.'A7हाبّที่") | st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6), st.sampled_from(["en", "hi", "th", "ar", "yo"]))
@settings(max_examples=100, deadline=None)
def test_a_score_is_defined_or_refused_and_never_a_quiet_zero(pairs, language):
    said, heard = map(list, zip(*pairs))
    if not any(text.split() for text in said):
        with pytest.raises(UserError, match="nothing to measure"): score(said, heard, language)
        return
    found = measure(said, heard, language, None)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for name, pair in dict(raw=pairs, norm=[[normalize(t, language) for t in pair] for pair in pairs]).items():
        if found[f"wer_{name}"] == 0: assert all(a.split() == b.split() for a, b in pair)
    assert (found["wer_norm"] is None) == (not any(normalize(t, language) for t in said))
    for i, j, same in align_words([w for w in said[0].split() if normalize(w, language)], [w for w in heard[0].split() if normalize(w, language)], language):
        assert not (i is None and j is None) and (not same or None not in (i, j))
    word_alignment(said[0], heard[0], language); casing_and_punctuation(said, heard, language)
    hallucination_rates(hallucinations(pd.DataFrame(dict(reference=said, after=heard)), language=language))


# ---- mistakes of the field

@pytest.mark.parametrize("language,said,heard", [
    ("hi", "किताब मेज़ पर है", "किताब मेज़ पर हो"), ("yo", "ọkọ̀ ni mo rí", "ọkọ́ ni mo rí"), ("ar-ma", "هاد الشي بزّاف", "هاد الشي بزاف"), ("th", "ข้าว ดี มาก", "ข่าว ดี มาก")])
def test_a_wrong_mark_is_a_wrong_word(language, said, heard):
    found = score([said], [heard], language)
    assert found["wer_norm"] == pytest.approx(1/len(said.split())) and found["cer_norm"] > 0
    assert score([said], [said], language)["wer_norm"] == 0
    assert "<mark" in word_alignment(said, heard, language) and paired_test([said]*30, [said]*30, [heard]*30, language)["verdict"] == "worse"


def test_a_hypothesis_that_runs_on_is_counted():
    said = ["stop", "call anna"]
    heard = ["stop" + " thanks for watching"*40, "call anna"]
    found = score(said, heard)
    assert found["wer_norm"] == 120/3 == found["insertions"]
    flags = hallucinations(pd.DataFrame(dict(reference=said, after=heard)))
    assert flags[["loop", "inserted", "compressed"]].to_numpy().tolist() == [[True]*3, [False]*3]


def test_a_handful_of_speakers_gives_an_interval_about_these_speakers_only():
    with pytest.warns(UserWarning, match="4 speakers are known, fewer than 20.*for these speakers only"):
        found = score(["a b"]*40, ["a c"]*20 + ["a b"]*20, speakers=list("abcd")*10)
    assert (found["ci_unit"], found["ci_scope"], found["n_speakers"]) == ("clip", "for these speakers only", 4)
    with pytest.warns(UserWarning, match="for these speakers only"): assert paired_test(["a"]*9, ["a"]*9, ["b"]*9)["ci_unit"] == "clip"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = score(["a b"]*40, ["a c"]*20 + ["a b"]*20, speakers=[*range(20)]*2)
    assert (found["ci_unit"], found["ci_scope"]) == ("speaker", "for speakers in general")


def test_what_is_drawn_and_exchanged_is_a_speaker_with_all_clips():
    who = [i//10 for i in range(240)]  # every third speaker is misheard, in all ten clips
    said, heard = ["a b"]*240, ["a b" if w % 3 else "a x" for w in who]
    counts = error_counts(said, heard)
    found, clips = score(said, heard, speakers=who), score(said, heard)
    assert found["wer_norm_ci95"] == bootstrap(add_up(counts, who)) != bootstrap(counts) == clips["wer_norm_ci95"]
    for rate in RATES: assert np.diff(found[f"{rate}_ci95"]) > 2*np.diff(clips[f"{rate}_ci95"])
    by_speaker, by_clip = paired_test(said, said, heard, speakers=who), paired_test(said, said, heard)
    assert (by_speaker["n_units"], by_clip["n_units"]) == (24, 240) and by_speaker["p"] == pytest.approx(2/2**8) and by_clip["p"] < .001
    assert np.diff(by_speaker["ci95"]) > 2*np.diff(by_clip["ci95"])


# ---- honest intervals and tests

def speakers_world(n_speakers, seed, clips=8, words=9, mean=.15, between=12):
    "Two systems with the same chance to misread a word of a speaker, and independent errors: int (n_clips, 4) each, and who speaks."
    rng = np.random.default_rng(seed)
    chance = rng.beta(mean*between, (1 - mean)*between, n_speakers)[:, None]
    errors = [rng.binomial(words, chance, (n_speakers, clips)).ravel() for _ in range(2)]
    return [np.stack([words - e, e, 0*e, 0*e], axis=1) for e in errors], list(np.repeat(np.arange(n_speakers), clips))


@pytest.mark.parametrize("n_speakers", [20, 35, 60])
def test_intervals_over_speakers_hold_the_truth(n_speakers):
    held = 0
    for seed in range(1_000):
        (counts, _), who = speakers_world(n_speakers, seed)
        low, high = bootstrap(add_up(counts, who), resamples=400)
        held += low <= .15 <= high
    assert .91 <= held/1_000 <= .97


def test_intervals_over_clips_of_clustered_speakers_do_not():
    worlds = [speakers_world(20, seed, clips=20)[0][0] for seed in range(200)]
    assert np.mean([low <= .15 <= high for low, high in (bootstrap(c, resamples=200) for c in worlds)]) < .8


@pytest.mark.parametrize("n_speakers,clips,words", [(20, 8, 9), (20, 2, 5), (45, 6, 8)])
def test_equal_systems_are_called_equal_as_often_as_promised(n_speakers, clips, words):
    verdicts = []
    for seed in range(1_000):
        pair, who = speakers_world(n_speakers, seed, clips, words)
        verdicts.append(compare_counts(*pair, who, resamples=1_000, seed=seed)["verdict"])
    assert .93 <= verdicts.count("no difference")/1_000 <= .97
    pair, who = speakers_world(n_speakers, 0, clips, words)
    assert compare_counts(pair[0], pair[0], who)["p"] == 1


def test_the_same_by_texts_and_with_clips_as_units():
    rng, verdicts = np.random.default_rng(0), []
    for _ in range(40):
        said = [" ".join(rng.choice(list("abcdefgh"), 6)) for _ in range(40)]
        one, two = ([" ".join(w if rng.random() > .3 else "x" for w in text.split()) for text in said] for _ in range(2))
        found = paired_test(said, one, two, speakers=[*range(40)], resamples=500)
        assert found == paired_test(said, one, two, speakers=[*range(40)], resamples=500)  # the same draw each time
        assert found["ci95"][0] <= found["difference"] <= found["ci95"][1]
        assert found["difference"] == pytest.approx(score(said, two)["wer_norm"] - score(said, one)["wer_norm"])
        verdicts.append(found["verdict"])
        assert paired_test(said, one, one)["verdict"] == "no difference" == paired_test(said, two, two, speakers=[*range(40)])["verdict"]
    assert verdicts.count("no difference") >= 34
    worse = paired_test(said, said, two, speakers=[*range(40)])
    assert worse["verdict"] == "worse" and worse["ci95"][0] > 0 and paired_test(said, two, said)["verdict"] == "better"


@pytest.mark.parametrize("n", [6, 11])
def test_the_p_value_is_scipys(n):
    for seed in range(20):
        change = np.random.default_rng(seed).permutation([3, -1, 7, 20, -44, 96, -200, 410, 801, -1650, 3300][:n])  # sums without ties
        theirs = scipy.stats.permutation_test((change, np.zeros(n)), lambda a, b: (a - b).sum(), permutation_type="samples", n_resamples=np.inf).pvalue
        assert sign_flips(change) == pytest.approx(theirs)
    many = np.random.default_rng(1).normal(.4, 1, 40)
    theirs = scipy.stats.permutation_test((many, np.zeros(40)), lambda a, b: (a - b).sum(), permutation_type="samples", n_resamples=20_000, rng=0).pvalue
    assert sign_flips(many, 20_000) == pytest.approx(theirs, abs=.01)


def test_a_million_words_in_seconds_and_in_bounded_memory():
    rng = np.random.default_rng(0)
    errors, other = rng.binomial(10, .15, 100_000), rng.binomial(10, .15, 100_000)
    counts = np.stack([10 - errors, errors, 0*errors, 0*errors], axis=1)
    tracemalloc.start(); begun = time.perf_counter()
    low, high = bootstrap(counts)
    p = sign_flips(errors - other, 1_000)
    seconds, peak = time.perf_counter() - begun, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert low < .15 < high and high - low < .003 and p > .001
    assert seconds < 30 and peak < 300e6, (seconds, peak)
    error = (errors.var()/1e5)**.5/10  # the interval that theory gives for clips
    assert (low, high) == pytest.approx((errors.mean()/10 - 1.96*error, errors.mean()/10 + 1.96*error), abs=.0003)


def test_the_bootstrap_is_scipys():
    counts = np.stack([np.random.default_rng(i).integers(1, 30, 50) for i in range(4)], axis=1)
    errors, words = counts[:, 1:].sum(1), counts[:, :3].sum(1)
    theirs = scipy.stats.bootstrap((errors, words), lambda e, w, axis=-1: e.sum(axis)/w.sum(axis), paired=True, method="percentile",
                                   n_resamples=9_999, rng=0, confidence_level=.95).confidence_interval
    low, high = bootstrap(counts, resamples=10_000)
    assert low <= theirs.low and high >= theirs.high  # ours is a little wider: fifty units
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=.02)
    assert resampled(counts, 700).mean(0) == pytest.approx(counts.sum(0), rel=.02)
    assert ratio_intervals(errors[:1], words[:1]) is None and ratio_intervals(errors, 0*words) is None


# ---- as users of `evaluate` expect

def gather(i, folder):
    said, heard = [["set the alarm", "yes"], ["good morning", ""]][i], [["set an alarm", "guess"], ["good morning", "thanks"]][i]
    found = []
    for metric in (WER, CER):
        there = metric(num_process=2, process_id=i, experiment_id="both", cache_dir=folder, timeout=60)
        for a, b in zip(said, heard): there.add_batch(predictions=[b], references=[a])
        found.append(there.compute(kinds=True))
    return found


def test_two_processes_gather_in_one_cache(tmp_path):
    "Each adds its clips; the first computes over all of them, the second gets nothing."
    with multiprocessing.get_context("fork").Pool(2) as pool:
        first, second = pool.starmap_async(gather, [(i, str(tmp_path)) for i in range(2)], chunksize=1).get(timeout=120)
    assert second == [None, None]
    assert first[0] == dict(wer=3/6, substitutions=2/6, deletions=0, insertions=1/6)
    assert first[1]["cer"] == jiwer.cer(["set the alarm", "yes", "good morning", ""], ["set an alarm", "guess", "good morning", "thanks"])


def test_a_metric_is_used_as_any_of_evaluate(tmp_path):
    said, heard = ["Wake me at 7!", "yes"], ["wake me at seven", "guess"]
    wer = WER(cache_dir=str(tmp_path))
    assert wer.compute(predictions=heard, references=said) == jiwer.wer(said, heard)
    for a, b in zip(said, heard): wer.add(prediction=b, reference=a)
    assert wer.compute(language="en") == 1/5
    kept = CER(keep_in_memory=True)
    kept.add_batch(predictions=heard, references=said)
    assert kept.compute() == pytest.approx(jiwer.cer(said, heard))
    assert CER().compute(predictions=[""], references=["ab"], kinds=True) == dict(cer=1., substitutions=0., deletions=1., insertions=0.)
    with pytest.raises(UserError, match="one hypothesis per reference"): WER().compute(predictions=["a"], references=["a", "b"])
    with pytest.raises(UserError, match='give ""'): WER().add_batch(predictions=[None], references=["a"])
    with pytest.raises(UserError, match="nothing to measure"): WER().compute(predictions=["a"], references=[" "])


# ---- bad input

@pytest.mark.parametrize("wrong,message", [
    ((["a", "b"], ["a"]), "2 references but 1 hypotheses"), (([], []), "nothing to measure"), ((["", " "], ["a", ""]), "nothing to measure"),
    ((["a"], [None]), 'hypothesis 0 is None, not a text.*give ""'), ((["a", "b"], ["a", float("nan")]), "hypothesis 1 is nan"),
    (([None], ["a"]), "reference 0 is None"), (({"a": "x", "b": "y"}, {"a": "x"}), r"1 only among the references \('b'\); decode the missing"),
    (({"a": "x"}, {"a": "x", "c": "y"}), r"1 only among the hypotheses \('c'\)"), (({"a": "x"}, {"b": "x"}), "not of the same clips"),
    (({"a": "x"}, ["x"]), "one side has ids")])
def test_pairs_that_do_not_match_are_refused(wrong, message):
    for f in (score, lambda a, b: paired_test(a, b, b), translation_score, casing_and_punctuation):
        with pytest.raises(UserError, match=message): f(*wrong)


def test_tables_of_other_clips_are_refused():
    one = pd.DataFrame(dict(id=["a", "b", "c"], reference=["x", "y", "z"], after=["1", "2", "3"]))
    assert same_clips(one, one.sample(frac=1, random_state=1)).equals(one)
    for wrong, message in [(one[:2], "'c'"), (one.assign(id=["a", "b", "b"]), "comes twice"), (one.assign(reference="x"), "another reference"),
                           (one.drop(columns="id"), "no column `id`")]:
        with pytest.raises(UserError, match=message): same_clips(one, wrong)


def test_the_smallest_corpora_have_defined_results():
    assert score(["a"], [""])["wer_norm"] == 1 and score(["a", ""], ["a", "b c"])["insertions"] == 2
    with pytest.warns(UserWarning, match="there is one clip"): found = score(["a"], ["a"], speakers=["me"])
    assert all(found[f"{rate}_ci95"] is None and found[rate] == 0 for rate in RATES) and found["n_speakers"] == 1
    with pytest.warns(UserWarning, match="1 speaker is known"): assert score(["a", "b"], ["a", "c"], speakers=["me"]*2)["ci_unit"] == "clip"
    with pytest.warns(UserWarning, match="there is one clip"): found = paired_test(["a"], ["b"], ["a"])
    assert (found["p"], found["verdict"], found["ci95"], found["difference"]) == (1, "no difference", None, -1)
    with pytest.warns(UserWarning, match="there is one clip"): assert translation_score(["a cat"], ["a cat"])["chrf_ci95"] is None
    table = pd.DataFrame(dict(reference=["a", "b"], before=["a", "c"], after=["a", "b"], accent=[None, ""]))
    with pytest.warns(UserWarning, match="no accent is known"): assert list(group_table(table, "accent").index) == ["(unknown)"]
    with pytest.warns(UserWarning, match="no accent is known"): assert score_groups(table, "accent") == {}
    silent = paired_test(["Hmm.", "a"], ["b", "a"], ["", "a"])
    assert silent["difference"] == -1 and paired_test(["Hmm."], ["a"], [""])["difference"] is None  # no word left to measure by


# ---- groups

@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    said = [" ".join(rng.choice(list("abcdefgh"), 5)) for _ in range(240)]
    hear = lambda p: [" ".join(w if rng.random() > p else "x" for w in text.split()) for text in said]
    return pd.DataFrame(dict(id=range(240), set=["test"]*160 + ["probe"]*80, reference=said, before=hear(.4), after=hear(.1), speaker=[f"s{i % 60}" for i in range(240)],
                             accent=["one", "two", None]*80, gender=["f", "m"]*120, age=[7, 34, 35, None]*60, duration_s=[.5, 4, 31, 2]*60, language=["en", "hi"]*120))


def test_groups_agree_with_scores_and_lose_no_clip(table):
    for by in ("accent", "speaker", "gender", "age", "language", "duration"):
        found = group_table(table, by)
        assert found["n_clips"].sum() == 240 and found.index.name == by
    found, groups = group_table(table, "accent"), score_groups(table, "accent")
    for name, row in found.iterrows():
        for system in ("before", "after"):
            assert row[system] == groups[name][system]["wer_norm"] and row[f"{system}_ci95"] == groups[name][system]["wer_norm_ci95"]
        part = table[table["accent"].fillna("(unknown)") == name]
        alone = paired_test(part["reference"], part["before"], part["after"], "en", part["speaker"])
        assert (row["difference"], row["difference_ci95"], row["p"], row["verdict"]) == (alone["difference"], alone["ci95"], alone["p"], "better")
    assert list(group_table(table, "age").index) == ["0 to 9", "30 to 39", "(unknown)"]
    assert list(group_table(table, "duration").index) == ["0 to 2 s", "2 to 5 s", "30 s and more"]
    assert list(group_table(table.assign(age=["thirties", "teens", "", "sixties"]*60), "age").index) == ["teens", "thirties", "sixties", "(unknown)"]
    assert group_table(table, "gender", systems=["after"]).columns.tolist() == ["n_clips", "n_speakers", "ci_unit", "after", "after_ci95"]
    assert group_table(table, "gender", None)["before"].notna().all()
    with pytest.warns(UserWarning, match="2 of 2 groups have fewer than 20"): group_table(table.assign(speaker=None), "gender")
    with pytest.raises(UserError, match="Did you mean `accent`"): group_table(table, "acent")
    with pytest.raises(UserError, match="no column `duration_s`"): group_table(table.drop(columns="duration_s"), "duration")


def test_many_looks_do_not_make_a_difference():
    p = np.array([.04, .003, .5, .02, np.nan])[:4]
    found = with_verdicts(pd.DataFrame(dict(p=p, more=[-1, -1, 1, 1])))
    assert found["p_holm"].tolist() == pytest.approx([.08, .012, .5, .06])
    assert found["verdict"].tolist() == ["no difference", "better", "no difference", "no difference"]


def test_forgetting_is_measured_on_the_probe(table):
    found, probe = forgetting(table), table[table["set"] == "probe"]
    assert found["n_clips"] == 80 and found["verdict"] == "better" and found["after"] == score(probe["reference"], probe["after"])["wer_norm"]
    assert forgetting(table.assign(before=table["after"], after=table["before"]))["verdict"] == "worse"
    assert forgetting(table.assign(after=table["before"]))["verdict"] == "no difference"
    assert forgetting(table[table["set"] == "test"]) is None


# ---- what an error rate does not show

@pytest.mark.parametrize("text", ["", "a", "The same, the same, the same. "*9, "نعم "*30, "お" * 50])
def test_the_compression_ratio_is_whispers(text):
    from whisper.utils import compression_ratio as theirs
    assert compression_ratio(text) == theirs(text)


@given(st.lists(st.sampled_from("abc"), max_size=4), st.lists(st.sampled_from("abc"), min_size=1, max_size=4), st.integers(1, 6), st.lists(st.sampled_from("abc"), max_size=4))
@settings(max_examples=200, deadline=None)
def test_a_loop_is_found_wherever_it_is(before, phrase, times, after):
    words = before + phrase*times + after
    def again(i, n): return next(k for k in range(99) if words[i+n*(k+1):i+n*(k+2)] != words[i:i+n])  # the phrase of n words at i
    by_hand = max(again(i, n) for i in range(len(words)) for n in range(1, len(words) - i + 1))
    assert longest_loop(words) == by_hand >= times - 1


def test_words_out_of_silence_and_rates():
    table = pd.DataFrame(dict(reference=["", "[noise]", "a b c d e f", "a b"], after=["thanks", "", "a b c d e f", "x y z"], non_speech=["", "True", None, False]))
    flags = hallucinations(table)
    assert flags["silent"].tolist() == [True, True, False, False] and flags["from_silence"].tolist() == [True, False, False, False]
    assert flags["any"].tolist() == [True, False, False, False]
    rates = hallucination_rates(flags)
    assert (rates["from_silence"]["share"], rates["inserted"]["of"], rates["any"]["share"]) == (.5, 2, .25)
    assert hallucination_rates(flags[2:])["from_silence"] == dict(n=0, of=0, share=None, ci95=None)
    low, high = hallucination_rates(flags[2:])["any"]["ci95"]
    assert low == pytest.approx(0, abs=1e-9) and high > .5  # none of two says little
    with pytest.raises(UserError, match="no column `after`"): hallucinations(table.drop(columns="after"))


def test_calibration_of_an_honest_and_of_a_boasting_model():
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 1, 50_000)
    assert calibration(p, rng.random(50_000) < p)["ece"] < .01
    assert calibration(np.full(1_000, .9), np.arange(1_000) % 2)["ece"] == pytest.approx(.4)
    found = calibration(p, rng.random(50_000) < p**2, bins=15)
    assert found["ece"] == pytest.approx(1/6, abs=.01) and sum(b["n"] for b in found["curve"]) == 50_000 == found["n"]
    assert calibration([1.], [True])["ece"] == 0 == calibration([0.], [0])["ece"]
    for wrong in (([.5], []), ([-.1], [1]), ([np.nan], [1]), ([.5], [2])):
        with pytest.raises(UserError): calibration(*wrong)
    assert share_right(["a b", "", "", "a"], ["a c d", "", "x", ""]).tolist() == [1/3, 1, 0, 0]
    words = word_confidence(["Don't stop, um, now"], [[dict(word=w, probability=.5) for w in (" don't", " stop", " uh", " no", " now")]])
    assert words[["word", "right"]].to_numpy().tolist() == [["don't", True], ["stop", True], ["no", False], ["now", True]]
    with pytest.raises(UserError, match="one list of words per reference"): word_confidence(["a"], [])


def test_languages_before_and_after():
    found = language_accuracy(["en"]*30 + ["sw"]*30, ["en"]*60, ["English"]*30 + ["sw"]*28 + ["en"]*2, [*range(30)]*2)
    assert (found["before"], found["after"], found["verdict"], found["ci_unit"]) == (.5, 58/60, "better", "speaker")
    assert found["difference"] == pytest.approx(28/60) and found["ci95"][0] <= found["difference"] <= found["ci95"][1] and found["n_unknown"] == 0
    assert found["before_confused"] == [dict(spoken="sw", heard="en", n=30)]
    assert "verdict" not in language_accuracy(["en", "sw"], ["en", "en"]) and language_accuracy(["en"], ["en"])["before_ci95"] is None
    json.dumps(found, allow_nan=False)
    for wrong in ((["en"], ["en", "sw"]), (["en"], [None]), ([None, ""], ["en", "en"]), ([], [])):
        with pytest.raises(UserError): language_accuracy(*wrong)


def test_casing_and_punctuation_apart_from_words():
    found = casing_and_punctuation(["Yes, Anna said: “No.”", "The U.S. is big…"], ["yes Hannah said: “no”", "the U.S. is big..."])
    assert found["case"] == pytest.approx(5/8)  # yes, no and the; Anna was misheard
    assert found["punctuation"]["“"] == dict(precision=1, recall=1, f1=1, said=1, heard=1) == found["punctuation"]["…"]
    assert found["punctuation"][","] == dict(precision=None, recall=0, f1=0, said=1, heard=0)
    plain = casing_and_punctuation(["a b"], ["a b"])
    assert plain["punctuation"] == {} and plain["capitals"]["f1"] is None and plain["case"] == 1
    assert casing_and_punctuation(["你好，世界。"], ["你好，世界？"], "zh")["all_marks"] == dict(precision=.5, recall=.5, f1=.5, said=2, heard=2)
    json.dumps(found, allow_nan=False)


def test_translations_score_as_sacrebleu_does():
    said = [f"The {a} {b} of the {c}." for a in ("old", "new") for b in ("house", "song") for c in ("king", "bird", "sea")]
    heard = misheard(said, 1)
    found = translation_score(said, heard, speakers=range(12))
    bleu, chrf = sacrebleu.corpus_bleu(heard, [said], ), sacrebleu.corpus_chrf(heard, [said])
    assert (found["bleu"], found["chrf"]) == pytest.approx((bleu.score, chrf.score))
    assert found["bleu_ci95"][0] < found["bleu"] < found["bleu_ci95"][1] and found["chrf_ci95"][0] < found["chrf"] < found["chrf_ci95"][1]
    metric = sacrebleu.metrics.BLEU()
    theirs = metric.corpus_score(heard*20, [said*20], n_bootstrap=1_000)  # its own interval, over sentences
    ours = translation_score(said*20, heard*20)
    assert (ours["bleu_ci95"][1] - ours["bleu_ci95"][0])/2 == pytest.approx(theirs._ci, rel=.15)
    assert "tok:13a" in found["bleu_signature"] and translation_score(["a cat sat"], [""])["bleu"] == 0


def test_translations_are_compared_as_sacrebleu_does():
    from sacrebleu.significance import PairedTest
    said = [f"The {a} {b} of the {c}." for a in ("old", "new", "tall") for b in ("house", "song") for c in ("king", "bird", "sea")]
    one, two = misheard(said, 1), misheard(said, 3)
    found = translation_test(said, one, two, resamples=10_000)
    theirs = PairedTest([("one", one), ("two", two)], {"chrF": sacrebleu.metrics.CHRF()}, [said], test_type="ar", n_samples=10_000)()[1]["chrF2"]
    assert found["difference"] == pytest.approx(theirs[1].score - theirs[0].score) and found["p"] == pytest.approx(theirs[1].p_value, abs=.02)
    assert found["ci95"][0] < found["difference"] < found["ci95"][1] and (found["ci_unit"], found["n_units"]) == ("clip", 18)
    some = [translation_counts(sacrebleu.metrics.CHRF(), said, heard) for heard in (one, two, said, [""]*18, ["x"]*18)]
    totals = np.concatenate([c.cumsum(0) for c in some] + some)
    assert chrf_of(totals) == pytest.approx([sacrebleu.metrics.CHRF()._compute_f_score(list(x)) for x in totals.tolist()])
    back = translation_test(said, two, one, resamples=10_000)
    assert back["difference"] == -found["difference"] and back["p"] == pytest.approx(found["p"], abs=.02)
    same = translation_test(said, one, one)
    assert (same["difference"], same["p"], same["verdict"], same["ci95"]) == (0, 1, "no difference", [0, 0])
    assert translation_test(said, ["nothing"]*18, said)["verdict"] == "better" and translation_test(said, said, [""]*18)["verdict"] == "worse"
    with pytest.warns(UserWarning, match="there is one clip"): assert translation_test(["a cat"], ["a cat"], ["a dog"])["ci95"] is None
    with pytest.raises(UserError, match="nothing to measure"): translation_test([" "], ["a"], ["b"])
    with pytest.raises(UserError): translation_test(["a"], ["a"], ["a", "b"])


def test_translations_that_are_equally_good_are_called_so():
    rng, words, wrong = np.random.default_rng(0), "the old song of a king and his tall house by the sea".split(), 0
    for world in range(100):
        said = [" ".join(rng.choice(words, 7)) for _ in range(48)]
        loss = rng.beta(2, 6, 24)  # of each speaker
        one, two = ([" ".join("vine" if rng.random() < loss[i % 24] else w for w in s.split()) for i, s in enumerate(said)] for _ in range(2))
        wrong += translation_test(said, one, two, [i % 24 for i in range(48)], resamples=200)["verdict"] != "no difference"
    assert wrong <= 10  # of 100; more has a probability of 1 % at 5 %


# ---- several languages, many groups

def test_a_group_in_which_nothing_is_said():
    "Invented words that are gone are a gain, although there is no rate; and an empty cell of a CSV is no text."
    home = pd.DataFrame(dict(reference=["call anna"]*30, before=["call anna"]*30, after=["call anna"]*30, place="home"))
    hall = pd.DataFrame(dict(reference=[""]*30, before=["thank you"]*30, after=[""]*30, place="hall"))
    for first, second, verdict in (("before", "after", "better"), ("after", "before", "worse")):
        found = group_table(pd.concat([home, hall]), "place", systems=(first, second))
        assert found["verdict"].to_dict() == dict(home="no difference", hall=verdict) and np.isnan(found.loc["hall", "difference"])
    with pytest.raises(UserError, match='reference 30 is nan.*give ""'): score_groups(pd.concat([home, hall.assign(reference=np.nan, place="home")]), "place")


HINDI = ("किताब मेज़ पर है", "किताब मेज़ पर हो")  # English rules would drop the vowel signs, and the error with them


def test_each_clip_by_the_rules_of_its_own_language():
    said, heard, codes = ["Call Anna at 7.", HINDI[0]]*15, ["call Anna at seven", HINDI[1]]*15, ["en", "hi"]*15
    assert score(said, heard, codes)["wer_norm"] == 1/8 and score(said, heard, "en")["wer_norm"] == 0
    table = pd.DataFrame(dict(set="probe", reference=said, before=said, after=heard, language=codes, accent="x"))
    assert forgetting(table, None)["after"] == 1/8 and score_groups(table, "accent", None)["x"]["after"]["wer_norm"] == 1/8
    assert paired_test(said, said, heard, codes)["difference"] == 1/8
    with pytest.raises(UserError, match="30 texts but 2 languages"): score(said, heard, ["en", "hi"])
    with pytest.raises(UserError, match="no column `language`"): score_groups(table.drop(columns="language"), "accent", None)


def test_many_groups_can_still_differ():
    table = pd.DataFrame([dict(speaker=f"{s:03d}", reference="one two", before="", after="one two") for s in range(300) for _ in range(20)])
    found = group_table(table, "speaker")
    assert len(found) == 300 and (found["verdict"] == "better").all()


def test_ages_in_words_stay_beside_ages_in_years():
    table = pd.DataFrame(dict(age=["twenties", "twenties", "teens", "34", None], reference="a", before="a", after="a"))
    assert group_table(table, "age")["n_clips"].to_dict() == {"30 to 39": 1, "teens": 1, "twenties": 2, "(unknown)": 1}


def test_equal_tables_with_an_empty_reference_are_the_same_clips():
    table = pd.DataFrame(dict(id=["a", "b"], reference=["yes", np.nan]))
    assert same_clips(table, table[::-1])["id"].tolist() == ["a", "b"]
