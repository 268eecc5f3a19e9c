"The suite of test sets: as data, measured, kept, compared and published; and the job that measures a model."
import csv, json, shutil

import numpy as np, pandas as pd, pytest, soundfile, yaml
from conftest import ROOT, make, own_recordings
from huggingface_hub import ModelCard
from whisper_tutorial import UserError
from whisper_tutorial.data.corpus import load_corpus, select, summary
from whisper_tutorial.evaluation import benchmarks as b
from whisper_tutorial.speech.audio import BadAudio, load_audio

GONE = dict(name="gone", source="folder:no/such/folder", language="en", gated=True)
HUB = dict(name="hub", source="hub:edinburghcstr/edacc", language="en")


def voices():
    clips = select(load_corpus("common_voice:data/accents"), {"split": "test", "accent": ["French", "German", "Hindi"]})
    return [dict(name=v, source="common_voice:data/accents", where={"speaker": v}, language="en") for v in sorted(set(clips["speaker"]))]


def forgetful(p, calls=None):
    "A model that loses each word with probability `p`."
    def hear(corpus):
        if calls is not None: calls.append(len(corpus))
        rng = np.random.default_rng([*corpus["id"][0].encode(), round(100*p)])
        return [" ".join(w for w in text.split() if rng.random() > p) for text in corpus["text"][:]]
    return hear


def refused(f, *words):
    with pytest.raises(UserError) as e: f()
    for word in words: assert word in str(e.value), str(e.value)


WANTED = ("LibriSpeech clean", "LibriSpeech other", "TED-LIUM", "GigaSpeech", "SPGISpeech", "Earnings-22", "AMI", "VoxPopuli", "Common Voice",
          "FLEURS", "MLS", "AfriSpeech-200", "EdAcc", "DVoice", "TED-LIUM talks")


def test_the_fifteen():
    suite = b.load_suite("fifteen")
    assert len(suite) == 15 and all(x.name.startswith(name) for x, name in zip(suite, WANTED))
    text = (ROOT/"nbs/suites/fifteen.yaml").read_text()
    for entry in yaml.safe_load(text)["benchmarks"]:
        assert {"name", "source", "split", "language", "licence", "size"} <= set(entry), entry
    unknown = [line for line in text.splitlines() if " null" in line and not line.startswith("#")]
    assert unknown and all("#" in line for line in unknown), "what is not known says why"
    assert all(x.gated for x in suite if "esb" in x.source or not x.source.startswith("hub:"))


def test_the_accents_are_counted_rightly():
    clips = summary(select(load_corpus("common_voice:data/accents"), {"split": "test"}), "accent").clips
    assert {x.name: x.size for x in b.load_suite("accents")} == clips.to_dict()


@pytest.mark.parametrize("entry, words", [
    (dict(lisence="MIT"), ["Did you mean `licence`?", "test set 1 (x)"]), (dict(language=None), ["`language` is None"]),
    (dict(source="common-voice:data/accents"), ["Did you mean `common_voice`?"]), (dict(source="data/accents"), ["KIND:PATH"]),
    (dict(size=0), ["`size` is 0"]), (dict(tags="tedlum"), ["`tags` is 'tedlum'"]), (dict(name=""), ["`name`"]),
    (dict(columns={"text": "words"}), ["`columns` are for datasets of the hub"])])
def test_a_wrong_entry_is_named(entry, words):
    right = dict(name="x", source="common_voice:data/accents", language="en")
    refused(lambda: b.load_suite([right | entry]), *words)


@pytest.mark.parametrize("text, word", [("benchmark: []", "one key, `benchmarks`"), ("benchmarks: []", "no test set"), ("[1]", "one key"),
                                        ("benchmarks: {a: b}", "with a list"), ("a: [", "not YAML"), ("", "one key")])
def test_a_wrong_file_is_named(tmp_path, text, word):
    (tmp_path/"suite.yaml").write_text(text)
    refused(lambda: b.load_suite(tmp_path/"suite.yaml"), word)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    "The embedded model on fifteen small sets and two that cannot be had, once."
    cache = tmp_path_factory.mktemp("cache")
    options = dict(clips=1, cache=cache, engine=dict(device="cpu"), max_new_tokens=24)  # no time is spent on endless texts
    return [*voices(), GONE, HUB], options, b.run_suite([*voices(), GONE, HUB], "data/nano", **options)


def test_fifteen_are_measured_and_two_say_why_not(measured):
    _, _, result = measured
    sets = result.sets.set_index("name")
    assert len(sets) == 17 and sets.reason.isna().sum() == 15 and len(result.clips) == 15
    assert "no/such/folder" in sets.reason["gone"] and "accept its terms" in sets.reason["gone"]
    assert "cannot be reached" in sets.reason["hub"]
    found = b.averages(result.sets)
    assert (found["n_sets"], found["n_all"], found["missing"]) == (15, 17, ["gone", "hub"])
    assert found["macro"] == pytest.approx(sets.wer_norm[:15].mean())
    words = (sets.n_words*sets.of_clips/sets.n_clips)[:15].astype(float)  # of the whole sets
    assert found["weighted"] == pytest.approx((sets.wer_norm[:15]*words).sum()/words.sum())
    assert sets.wer_norm_ci95.isna().all(), "one clip has no interval"


def test_a_second_call_decodes_nothing(measured, monkeypatch):
    suite, options, result = measured
    def no(*args, **kwargs): raise AssertionError("decoded again")
    monkeypatch.setattr(b, "decode", no); monkeypatch.setattr(b, "load_engine", no)
    pd.testing.assert_frame_equal(b.run_suite(suite, "data/nano", **options).clips, result.clips)


def test_a_loaded_model_is_as_good_as_its_folder(measured):
    from whisper_tutorial.evaluation.transcribe import load_engine
    suite, options, result = measured
    few, engine = options | dict(names=[x["name"] for x in suite[:2]], cache=None), load_engine("data/nano", device="cpu")
    for model in (engine, engine.model):
        more = {} if model is engine else dict(tokenizer=engine.tokenizer)
        again = b.run_suite(suite, model, **few, **more)
        assert list(again.clips.text) == list(result.clips.text[:2])


def test_what_was_interrupted_is_continued(measured, tmp_path, monkeypatch):
    suite, options, result = measured
    seen, decode = [], b.decode
    def watched(engine, corpus, **kwargs): seen.append(corpus["id"][:]); return decode(engine, corpus, **kwargs)
    monkeypatch.setattr(b, "decode", watched)
    shutil.copytree(options["cache"], tmp_path/"cache")
    file = sorted((tmp_path/"cache").glob("*.csv"))[0]
    file.write_text(file.read_text().splitlines()[0] + "\n\"half a li")
    again = b.run_suite(suite, "data/nano", **options | dict(cache=tmp_path/"cache"))
    assert len(seen) == 1
    pd.testing.assert_frame_equal(again.clips, result.clips)


def test_other_weights_words_and_ways_are_not_taken_for_these(tmp_path):
    calls, folder = [], own_recordings(tmp_path/"mine", test=3)
    mine = [dict(name="mine", source=f"folder:{folder}", language="en")]
    def run(**changes): return b.run_suite(mine, forgetful(.2, calls), **dict(model="a", cache=tmp_path/"cache") | changes)
    run(); run(); assert len(calls) == 1
    run(model="b"); assert len(calls) == 2
    run(beams=5); assert len(calls) == 3
    run(clips=2); assert len(calls) == 4
    run(model=None); run(model=None); assert len(calls) == 6
    moved = tmp_path/"elsewhere"/"mine"
    shutil.copytree(folder, moved)
    mine[0]["source"] = f"folder:{moved}"
    run(); assert len(calls) == 6, "a corpus that lies elsewhere is the same"
    (moved/"metadata.csv").write_text((moved/"metadata.csv").read_text().replace("German", "Bavarian"))
    run(); assert len(calls) == 7


@pytest.mark.parametrize("lost", [1, 4, 8, 9], ids=["the line's end", "three letters", "a word", "half a letter"])
def test_a_text_that_breaks_off_is_not_an_answer(tmp_path, lost):
    whole, file = "id,text\na,one two\nb,drei Größen mehr\n".encode(), tmp_path/"kept.csv"
    corpus = select(load_corpus("common_voice:data/accents"), {"split": "test"}).select(range(2))
    corpus = corpus.remove_columns("id").add_column("id", ["a", "b"])
    def hear(corpus, out=None): return ["one two", "drei Größen mehr"]
    def kept(data): file.write_bytes(data); return b.hear_corpus(lambda corpus: pytest.fail("decoded again"), corpus, file)
    assert kept(whole) == hear(corpus)
    hear.continues = True
    file.write_bytes(whole[:-lost])
    assert b.hear_corpus(hear, corpus, file) == hear(corpus)
    assert file.read_bytes() == whole[:-lost], "it is `decode` that goes on with it"


@pytest.mark.parametrize("cut", ["a text", "a letter"])
def test_decode_goes_on_with_a_file_that_breaks_off(measured, tmp_path, monkeypatch, cut):
    suite, options, result = measured
    shutil.copytree(options["cache"], tmp_path/"cache")
    file = sorted((tmp_path/"cache").glob("*.csv"))[0]
    rows = file.read_bytes().split(b"\n", 1)
    clip = next(csv.DictReader(file.open(encoding="utf-8", newline="")))["id"].encode()
    file.write_bytes(rows[0] + b"\n" + clip + b",wrong tex" + "ß".encode()[:cut == "a letter"])
    again = b.run_suite(suite, "data/nano", **options | dict(cache=tmp_path/"cache"))
    pd.testing.assert_frame_equal(again.clips, result.clips)


def drawer(folder, test):
    "A folder of recordings, their files, and the suite that they are."
    folder = own_recordings(folder, test=test)
    return folder, sorted(folder.glob("*.mp3")), [dict(name="mine", source=f"folder:{folder}", language="en")]


def listening(calls):
    "A model that decodes each clip's sound, and says nothing about it."
    def hear(corpus): calls.append(len(corpus)); return [str(len(load_audio(audio))) for audio in corpus["audio"]]
    return hear


def test_damaged_clips_are_set_aside_and_counted(tmp_path):
    import soundfile
    folder, files, suite = drawer(tmp_path/"mine", test=5)
    files[0].write_text("no sound")  # cannot be opened
    soundfile.write(tmp_path/"nan.wav", np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    shutil.move(tmp_path/"nan.wav", files[2])  # its header is sound
    ids, calls = [f.stem for f in files], []
    result = b.run_suite(suite, listening(calls), model="a", cache=tmp_path/"cache")
    row = b.as_records(result.sets)[0]
    assert (row["reason"], row["n_clips"], row["of_clips"], row["wordless"], row["undecodable"]) == (None, 3, 5, 0, 2)
    assert row["note"].startswith("2 of 5 clips set aside") and f"`{ids[0]}" in row["note"] and row["note"].endswith("cannot be decoded")
    assert list(result.clips.id) == list(b.load_benchmark(b.as_benchmark(suite[0], 1))[0].filter(lambda r: r["id"].split(".")[0] not in (ids[0], ids[2]))["id"])
    assert calls == [4, 3], "the one that is unreadable is known beforehand, the other met"
    assert "2 of 5 clips set aside" in b.model_card(result, "m").content and str(tmp_path) not in b.model_card(result, "m").content
    again = b.run_suite(suite, listening(calls), model="a", cache=tmp_path/"cache")
    pd.testing.assert_frame_equal(again.clips, result.clips)
    b.run_suite(suite, listening(calls), model="b", cache=tmp_path/"cache")
    assert calls == [4, 3, 3], "nothing is heard again, and another model passes over both at once"
    for file in files: file.write_text("no sound")
    refused(lambda: b.run_suite(suite, listening(calls), model="a", cache=None), "none of the 5 clips can be decoded", ids[0], "cannot be decoded")


def test_a_model_that_decodes_meets_a_damaged_clip(tmp_path):
    folder, files, suite = drawer(tmp_path/"mine", test=3)
    files[1].write_bytes(b"no sound")
    result = b.run_suite(suite, "data/nano", cache=tmp_path/"cache", engine=dict(device="cpu"), max_new_tokens=8)
    assert result.sets.reason[0] is None and result.sets.undecodable[0] == 1 and len(result.clips) == 2


def test_a_model_that_says_nothing_of_a_clip_is_told_so_each_time(tmp_path):
    "Nothing is kept of it: a file cannot tell no text from an empty one."
    _, _, suite = drawer(tmp_path/"mine", test=3)
    for _ in range(2): refused(lambda: b.run_suite(suite, lambda corpus: ["a", None, "b"], model="m", cache=tmp_path/"cache"), "hypothesis 1 is None")
    refused(lambda: b.run_suite(suite, lambda corpus: ["a", "b", "c"], model="m", cache=tmp_path/"cache", task="translate"), "`task` is translate")


def test_a_model_that_blames_sound_clips_is_not_believed(tmp_path):
    _, _, suite = drawer(tmp_path/"mine", test=2)
    def blind(corpus): raise BadAudio("I cannot hear")
    refused(lambda: b.run_suite(suite, blind, cache=None), "I cannot hear")


def test_the_same_measurement_asked_in_other_words_is_decoded_once(tmp_path):
    _, _, suite = drawer(tmp_path/"mine", test=3)
    calls = []
    def run(**options): return b.run_suite(suite, forgetful(.2, calls), model="a", cache=tmp_path/"cache", **options)
    for same in ({}, dict(batch_size=4), dict(processes=2), dict(beams=1), dict(task="transcribe", timestamps=False, long="sequential", device="cpu"),
                 dict(engine=dict(device="cpu"))): run(**same)
    assert len(calls) == 1
    for n, other in enumerate((dict(beams=2), dict(timestamps=True), dict(max_new_tokens=9), dict(words=True), dict(long=None)), 2):
        run(**other)
        assert len(calls) == n, other


def test_an_engine_asked_in_other_words_is_the_same(tmp_path):
    from whisper_tutorial.evaluation.transcribe import load_engine
    one = b.manner("data/nano", dict(device="cpu"), {})
    assert one == b.manner("data/nano", dict(device="cpu", engine="transformers", precision="fp32"), dict(batch_size=9, beams=1))
    assert one == b.manner(load_engine("data/nano", device="cpu"), dict(device="cpu"), dict(processes=2))
    assert len({b.manner("data/nano", dict(device="cpu", precision=p), {})["precision"] for p in ("fp32", "bf16", "fp16")}) == 3
    refused(lambda: b.manner("data/nano", dict(device="cudo"), {}), "`cudo`", "cpu")


def test_a_fingerprint_is_of_weights_and_configuration(tmp_path):
    import torch
    from transformers import WhisperForConditionalGeneration
    a, c = b.model_fingerprint("data/nano"), tmp_path/"copy"
    shutil.copytree(ROOT/"data/nano", c)
    (c/"README.md").write_text("words"); (c/"trainer_state.json").write_text("{}")
    assert b.model_fingerprint(c) == a
    config = json.loads((c/"generation_config.json").read_text())
    (c/"generation_config.json").write_text(json.dumps(config | {"suppress_tokens": [1]}))
    assert b.model_fingerprint(c) != a
    model = WhisperForConditionalGeneration.from_pretrained(ROOT/"data/nano")
    one = b.model_fingerprint(model)
    assert b.model_fingerprint(WhisperForConditionalGeneration.from_pretrained(ROOT/"data/nano")) == one
    with torch.no_grad(): next(model.parameters()).view(-1)[0] += 1e-3
    assert b.model_fingerprint(model) != one
    adapter = tmp_path/"adapter"
    adapter.mkdir(); (adapter/"adapter_config.json").write_text(json.dumps(dict(base_model_name_or_path="data/nano")))
    mine = b.model_fingerprint(adapter)
    (adapter/"adapter_config.json").write_text(json.dumps(dict(base_model_name_or_path=str(c))))
    assert b.model_fingerprint(adapter) != mine
    refused(lambda: b.model_fingerprint("openai/whisper-of-nobody"), "no model `openai/whisper-of-nobody`")


@pytest.fixture(scope="module")
def pair():
    "Half of the errors, on eight sets and one that is gone."
    suite = [*b.load_suite("accents"), GONE]
    return [b.run_suite(suite, forgetful(p), cache=None) for p in (.3, .1)]


def test_a_star_is_the_paired_test_s(pair):
    before, after = pair
    table = b.compare_suites(before, after)
    assert ((table.star == "*") == table.verdict.isin(["better", "worse"])).all() and (table.star == "*").any()
    assert table.reason.notna().sum() == 1 and table.star.iloc[-1] == ""
    assert set(b.compare_suites(before, before).star) == {""}
    back = b.compare_suites(after, before)
    assert list(back.star) == list(table.star)
    assert np.allclose(back.difference[:8].astype(float), -table.difference[:8].astype(float))


def test_other_clips_are_not_compared(pair):
    before, after = pair
    suite = [*b.load_suite("accents"), GONE]
    refused(lambda: b.compare_suites(before, b.run_suite(suite, forgetful(.1), clips=3, cache=None)), "the same `clips` and `seed`")
    refused(lambda: b.compare_suites(before, b.run_suite(suite[:2], forgetful(.1), cache=None)), "not of the same sets")


def test_an_average_is_over_what_both_have(pair):
    before, after = pair
    sets = after.sets.copy(); sets.loc[0, "reason"] = "the disk was full"
    shown = b.show_suite(b.Result(sets, after.clips), before).set_index("Set")
    assert shown.Clips["American"] == "not measured" and shown.Clips["Average of sets"] == "7 of 9 sets"
    assert shown["Before (%)"]["Average of sets"] == f"{100*before.sets.wer_norm[1:8].astype(float).mean():.1f}"


def test_the_table_in_four_forms(pair, tmp_path):
    before, after = pair
    b.write_suite(tmp_path, after, before, "mine", base_model="openai/whisper-tiny", licence="apache-2.0")
    assert len(pd.read_csv(tmp_path/"suite.csv")) == 9
    lines = (tmp_path/"suite.md").read_text().splitlines()
    assert len(lines) == 2 + 9 + 2 and all(line.count("|") == lines[0].count("|") for line in lines)
    latex = (tmp_path/"suite.tex").read_text()
    assert latex.count(r"\\") == 12 and "−" not in latex and "–" not in latex and r"\%" in latex
    card = ModelCard.load(tmp_path/"README.md")
    assert len(card.data.eval_results) == 8 and card.data.model_name == "mine" and card.data.base_model == "openai/whisper-tiny"
    assert card.data.eval_results[0].metric_value == round(100*after.sets.wer_norm[0], 2)
    assert "gone was not measured" in card.text and "p < 0.05" in card.text
    assert yaml.safe_load(str(card).split("---")[1])["model-index"][0]["results"][0]["task"]["type"] == "automatic-speech-recognition"


def test_a_card_says_what_its_numbers_are_of(tmp_path):
    folder = own_recordings(tmp_path/"mine", test=5)
    suite = [dict(name="mine", source=f"folder:{folder}", language="en", size=6)]
    card = b.model_card(b.run_suite(suite, forgetful(.2), clips=2, cache=None), "m")
    assert card.data.eval_results[0].dataset_name == "mine (2 of 5 clips)"
    assert "5 clips were found, where the suite says 6" in card.text
    assert str(tmp_path) not in str(card), "a path is nobody's business"
    row = dict(name="LibriSpeech clean", source="hub:openslr/librispeech_asr:clean@abc", split="test", n_clips=9, of_clips=9, wer_norm=.1)
    found = b.eval_result(row, "m")
    assert (found.dataset_type, found.dataset_config, found.dataset_revision) == ("openslr/librispeech_asr", "clean", "abc")


def test_a_hub_that_is_not_reached_is_asked_once(monkeypatch):
    asked = []
    def nobody(x, *_):
        asked.append(b.constants.HF_HUB_OFFLINE)
        raise UserError(f"the hub cannot be reached for `{x.name}`")
    monkeypatch.setattr(b.constants, "HF_HUB_OFFLINE", False); monkeypatch.setattr(b, "load_benchmark", nobody)
    refused(lambda: b.run_suite("fifteen", forgetful(.1), cache=None), "none of the 15 sets", "LibriSpeech clean because: the hub cannot")
    assert asked == [False] + [True]*14 and b.constants.HF_HUB_OFFLINE is False


def test_clips_without_words_are_left_out_and_counted(tmp_path):
    folder = own_recordings(tmp_path/"mine", test=4)
    table = list(csv.DictReader((folder/"metadata.csv").open()))
    table[0]["text"], table[1]["text"] = "ignore_time_segment_in_scoring", "<unk>"
    pd.DataFrame(table).to_csv(folder/"metadata.csv", index=False)
    entry = dict(name="talks", source=f"folder:{folder}", language="en", tags="tedlium")
    corpus, counts = b.load_benchmark(b.as_benchmark(entry, 1))
    assert len(corpus) == 2 and counts == dict(of_clips=2, wordless=2)
    assert b.run_suite([entry], lambda c: [""]*len(c), cache=None).sets.wer_norm[0] == 1


SMOKE = "-y 'smoke: true'"


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")/"nano"
    return out, make("run", JOB="evaluate", OUT=out, ARGS=f"{SMOKE} -p language detect")


def test_the_job_measures_one_model(job):
    out, done = job
    assert done.returncode == 0, done.text
    metrics, manifest = (json.loads((out/f"{n}.json").read_text()) for n in ("metrics", "manifest"))
    assert set(metrics["before"]) == set(metrics["after"]) and not any(metrics["before"].values())
    assert 0 <= metrics["after"]["wer_norm"] < 2 and metrics["by_group"]["accent"]
    n_clips = metrics["after"]["n_clips"]
    assert metrics["calibration"]["n"] == n_clips and 0 < metrics["calibration"]["ece"] < 1 and metrics["writing"]["en"]["capitals"]["said"] > 0
    assert metrics["language_accuracy"]["accuracy"] == 1 and metrics["language_accuracy"]["n_clips"] == n_clips
    said = list(csv.DictReader((out/"hypotheses.csv").open()))
    assert [*said[0]][:7] == ["id", "set", "speaker", "accent", "reference", "before", "after"]
    assert {r["detected"] for r in said if r["set"] == "test"} == {"en"}
    assert sum(r["set"] == "test" for r in said) == metrics["after"]["n_clips"] and not any(r["before"] for r in said)
    assert {"finished", "model_fingerprint", "data_fingerprint", "seconds", "versions"} <= set(manifest)
    for name in ("recipe.yaml", "groups.csv", "hallucinations.csv", "quarantine.csv", "decoded.csv", "report.html", "evaluate.ipynb"):
        assert (out/name).exists(), name
    assert "Traceback" not in done.text


def test_the_job_refuses_before_it_writes(tmp_path):
    done = make("run", JOB="evaluate", OUT=tmp_path/"x", ARGS="-p modle data/nano")
    assert done.returncode and "Did you mean `model`?" in done.text
    assert not (tmp_path/"x"/"recipe.yaml").exists()


def test_the_job_measures_a_suite(tmp_path, everything):
    if not everything: pytest.skip("with --all: the same job on a suite")
    done = make("run", JOB="evaluate", OUT=tmp_path/"x", ARGS=f"-p suite fifteen {SMOKE}")
    assert done.returncode == 0, done.text
    metrics = json.loads((tmp_path/"x"/"metrics.json").read_text())
    assert len(metrics["suite"]) == 8 and len(metrics["by_group"]["benchmark"]) == 8
    for name in ("suite.csv", "suite.md", "suite.tex", "README.md"): assert (tmp_path/"x"/"suite"/name).exists()


def test_the_job_scores_each_set_of_a_suite_by_its_own_rules(tmp_path):
    "Although the recipe names a language, which is that of its own corpus."
    from whisper_tutorial.evaluation import report
    for code, text in (("en", "Call Anna at 7."), ("hi", "किताब मेज़ पर है")):
        table = own_recordings(tmp_path/code, ("American",), test=2)/"metadata.csv"
        head, *rows = list(csv.reader(table.open()))
        with table.open("w", newline="") as file: csv.writer(file).writerows([head, *([row[0], text, *row[2:]] for row in rows)])
    sets = [dict(name=code, source=f"folder:{tmp_path/code}", language=code) for code in ("en", "hi")]
    (tmp_path/"two.yaml").write_text(yaml.safe_dump(dict(benchmarks=sets)))
    done = make("run", JOB="evaluate", RECIPE="quickstart", OUT=tmp_path/"x", ARGS=f"-p suite {tmp_path/'two.yaml'}")
    assert done.returncode == 0, done.text
    run = report.study(report.read_run(tmp_path/"x"))
    assert run["codes"] == run["table"]["benchmark"].tolist() and set(run["codes"]) == {"en", "hi"}
    assert set(run["plain"]["reference"]) == {"call anna at 7", "किताब मेज़ पर है"}  # English rules would drop the vowel signs
    assert "language" in done.text and yaml.safe_load((tmp_path/"x/recipe.yaml").read_text())["language"] is None
    done = make("run", JOB="evaluate", OUT=tmp_path/"y", ARGS=f"-p suite {tmp_path/'two.yaml'} -p task translate")
    assert "`task` is translate" in done.text and done.returncode


def test_the_job_takes_silence_for_what_it_is_told(tmp_path):
    clips = own_recordings(tmp_path/"clips", ("American",), train=0, validation=0, test=3)
    rows = list(csv.reader((clips/"metadata.csv").open()))
    soundfile.write(clips/"quiet.wav", 1e-4*np.random.default_rng(0).standard_normal(2*16_000), 16_000)
    quiet = [{"file_name": "quiet.wav", "split": "test"}.get(column, "") for column in rows[0]]
    rows = [row + [language] for row, language in zip([*rows, quiet], ["language", *["en"]*(len(rows) - 1), ""])]  # of silence: none
    with (clips/"metadata.csv").open("w", newline="") as file: csv.writer(file).writerows(rows)
    said = f"-p data folder:{clips} -y 'language: null' -y 'probe: null'"
    found = {}
    for name, more in (("set aside", ""), ("silence", " -p silence true")):
        done = make("run", JOB="evaluate", OUT=tmp_path/name.replace(" ", "-"), ARGS=said + more)
        assert done.returncode == 0, done.text
        found[name] = json.loads((tmp_path/name.replace(" ", "-")/"metrics.json").read_text())
    assert [found[n]["after"]["n_clips"] for n in found] == [3, 4]
    assert [found[n]["hallucinations"]["from_silence"]["of"] for n in found] == [0, 1]
    with (tmp_path/"set-aside/quarantine.csv").open() as file: assert [r["id"] for r in csv.DictReader(file)] == ["quiet.wav"]


def test_a_suite_is_not_told_what_is_spoken(tmp_path):
    done = make("run", JOB="evaluate", OUT=tmp_path/"x", ARGS=f"-p suite accents -p language detect {SMOKE}")
    assert done.returncode and "the suite accents says by itself what is spoken" in done.text and not (tmp_path/"x"/"recipe.yaml").exists()
