"Several runs side by side: which are meant, what differs, what is more than chance; and the job as a user calls it."
import csv, json, shutil

import numpy as np, pandas as pd, pytest
from conftest import make
from test_report import write_run
from whisper_tutorial import UserError
from whisper_tutorial.evaluation import compare as c
from whisper_tutorial.evaluation.report import read_run

WORDS = "the quick brown fox jumps over a lazy dog today".split()


def made_up(folder, share, n=120, n_speakers=24, seed=0, noise=None, before=True, first=0, **recipe):
    "A run on made-up sentences, in which a share of the words is misheard; `seed` is that of the sentences."
    dice, slips = np.random.default_rng(seed), np.random.default_rng(noise if noise is not None else seed + 1)
    rows = []
    for i in range(first, first + n):
        said = list(dice.choice(WORDS, 6))
        heard = ["zebra" if slips.random() < share else w for w in said]
        rows.append(dict(id=f"clip-{i}", set="test", speaker=f"voice {i % n_speakers}", accent=None, reference=" ".join(said),
                         before=said[0] if before else "", after=" ".join(heard)))
    return write_run(folder, rows, before=before, **recipe)


@pytest.fixture(scope="module")
def rates(tmp_path_factory):
    "Five learning rates, of which the last is bad; one run that was interrupted; and the folder of another job."
    folder = tmp_path_factory.mktemp("runs")
    for i, (name, share) in enumerate({"rate-1e-5": .3, "rate-3e-5": .2, "rate-1e-4": .2, "rate-3e-4": .2, "rate-1e-3": .6}.items()):
        made_up(folder/name, share, noise=10 + i, learning_rate=float(name[5:]), model="data/nano")
    shutil.copytree(folder/"rate-1e-5", folder/"rate-1e-2"); (folder/"rate-1e-2"/"metrics.json").unlink()
    (folder/"rate-prepare").mkdir(); (folder/"rate-prepare"/"manifest.json").write_text('{"finished": "2026-01-01"}')
    (folder/"rate-empty").mkdir()
    (folder/"rate-notes.txt").write_text("a file")
    return folder


def test_the_runs_that_are_meant(rates):
    names = lambda found: [p.name for p in found]
    assert names(c.find_runs(f"{rates}/rate-*e-5")) == ["rate-1e-5", "rate-3e-5"]
    assert names(c.find_runs([f"{rates}/rate-3e-5", f"{rates}/*-3e-5"])) == ["rate-3e-5"]
    assert "rate-1e-3" not in names(c.find_runs(f"{rates}/*", besides=rates/"rate-1e-3"))
    assert "rate-notes.txt" not in names(c.find_runs(f"{rates}/*"))
    for wrong in (f"{rates}/rate-1e5", f"{rates}/nothing-*", "_runs/no such run"):
        with pytest.raises(UserError, match="there is no run"): c.find_runs(wrong)
    with pytest.raises(UserError, match="Did you mean `rate-1e-5`"): c.find_runs(f"{rates}/rate-1e5")


def test_unfinished_runs_are_named_with_what_is_missing(rates):
    found = c.compare(c.find_runs(f"{rates}/*"))
    why = {path.rsplit("/", 1)[1]: text for path, text in found["unfinished"].items()}
    assert set(why) == {"rate-1e-2", "rate-prepare", "rate-empty"} and len(found["table"]) == 5
    assert "its log ends at step 96" in why["rate-1e-2"] and "another job" in why["rate-prepare"] and "is no run" in why["rate-empty"]
    with pytest.raises(UserError, match="1 of 2 runs can be compared.*rate-1e-2` is not finished"): c.compare([rates/"rate-1e-5", rates/"rate-1e-2"])


def test_a_killed_run_does_not_hinder_the_others(rates, tmp_path):
    for name in ("rate-1e-5", "rate-3e-5", "rate-1e-2"): shutil.copytree(rates/name, tmp_path/name)
    whole = c.compare(c.find_runs(f"{tmp_path}/*"))
    for name in ("rate-3e-5", "rate-1e-2"):
        with open(tmp_path/name/"metrics.jsonl", "a") as file: file.write('{"step": 1')
    found = c.compare(c.find_runs(f"{tmp_path}/*"))
    assert found["unfinished"] == whole["unfinished"] and found["logs"] == whole["logs"]
    assert "its log ends at step 96" in found["unfinished"][str(tmp_path/"rate-1e-2")]
    (tmp_path/"rate-1e-2"/"metrics.jsonl").write_text('{"st')
    assert "nothing is logged yet" in c.what_is_missing(tmp_path/"rate-1e-2")


def test_only_what_differs_is_shown(rates):
    found = c.compare(c.find_runs(f"{rates}/rate-?e-?"))["differences"]
    assert list(found.index) == ["learning_rate"] and set(found.loc["learning_rate"]) == {"1e-05", "3e-05", "0.0001", "0.0003", "0.001"}


def test_rates_are_those_of_the_runs_and_tests_are_adjusted(rates):
    found = c.compare(c.find_runs(f"{rates}/*"))
    for name, row in found["table"].iterrows():
        after = read_run(rates/name)["metrics"]["after"]
        assert (row["wer"], [row["low"], row["high"]], row["n_clips"]) == (after["wer_norm"], after["wer_norm_ci95"], 120)
    assert len(found["tests"]) == 10 and all(t["p_holm"] >= t["p"] for t in found["tests"])
    like = {frozenset((t["one"], t["two"])) for t in found["tests"] if t["verdict"] == "no difference"}
    assert like == {frozenset(pair) for pair in (("rate-3e-5", "rate-1e-4"), ("rate-3e-5", "rate-3e-4"), ("rate-1e-4", "rate-3e-4"))}
    for t in found["tests"]:
        assert np.sign(t["difference"]) == np.sign(found["table"]["wer"][t["two"]] - found["table"]["wer"][t["one"]])
    says = " ".join(found["says"])
    assert "5 runs on the same 120 clips; intervals over 24 speakers" in says and "flattered" in says and "10 pairs" in says
    assert "It is better than" in says and "no difference that chance does not explain" in says


def test_a_run_against_itself_is_no_different(tmp_path):
    made_up(tmp_path/"a", .3); shutil.copytree(tmp_path/"a", tmp_path/"b")
    found = c.compare(c.find_runs(f"{tmp_path}/*"))
    assert found["tests"][0]["p"] == found["tests"][0]["p_holm"] == 1 and found["tests"][0]["verdict"] == "no difference"
    assert found["differences"].empty


def test_equal_runs_are_rarely_called_different():
    "The chance of even one false difference among six pairs is at most 5 %, after Holm."
    rng, wrong = np.random.default_rng(3), 0
    for _ in range(100):
        errors = rng.binomial(60, rng.beta(2, 6, 24)[:, None], (24, 4))
        counts = {str(k): np.stack([60 - e, e, 0*e, 0*e], axis=1) for k, e in enumerate(errors.T)}
        wrong += any(t["verdict"] != "no difference" for t in c.error_tests(counts, list(range(24))))
    assert wrong <= 10  # of 100; more has a probability of 1 % at 5 %


def test_other_clips_are_left_out_or_refused(tmp_path):
    made_up(tmp_path/"long", .3, n=120)
    made_up(tmp_path/"short", .3, n=60)
    found = c.compare(c.find_runs(f"{tmp_path}/*"))
    assert set(found["table"]["n_clips"]) == {60} and "all rates are of the 60 that are in all" in found["says"][-1]
    made_up(tmp_path/"other", .3, n=60, first=200)
    with pytest.raises(UserError, match="no test clip is in all of these runs .*long 120, other 60, short 60.*job evaluate"): c.compare(c.find_runs(f"{tmp_path}/*"))
    shutil.rmtree(tmp_path/"other")
    made_up(tmp_path/"words", .3, n=60, seed=5)  # the same ids, other sentences: another corpus
    with pytest.raises(UserError, match="no test clip"): c.compare(c.find_runs(f"{tmp_path}/*"))


def test_runs_of_evaluate_and_few_speakers(tmp_path):
    made_up(tmp_path/"one", .3, n_speakers=4, before=False, model="a", engine="transformers")
    made_up(tmp_path/"two", .3, n_speakers=4, noise=9, model="b")
    found = c.compare(c.find_runs(f"{tmp_path}/*"))
    assert set(found["table"]["ci_unit"]) == {"clip"} and "for these speakers only" in found["says"][0]
    assert found["table"]["before"].isna().tolist() == [True, False] and found["logs"]["one"] == []
    assert "Only some runs have the keys engine" in found["says"][-1] and list(found["differences"].index) == ["model"]


def test_what_cannot_be_compared_is_refused(tmp_path):
    made_up(tmp_path/"one", .3); made_up(tmp_path/"two", .3, language="de")
    with pytest.raises(UserError, match="different languages"): c.compare(c.find_runs(f"{tmp_path}/*"))
    made_up(tmp_path/"three", .3)
    table = pd.read_csv(tmp_path/"three"/"hypotheses.csv"); pd.concat([table, table[:1]]).to_csv(tmp_path/"three"/"hypotheses.csv", index=False)
    with pytest.raises(UserError, match="'clip-0' twice"): c.compare([tmp_path/"one", tmp_path/"three"])


def test_runs_of_one_name_are_told_apart(tmp_path):
    made_up(tmp_path/"x"/"mine", .3); made_up(tmp_path/"y"/"mine", .3)
    assert list(c.compare(c.find_runs(f"{tmp_path}/*/mine"))["table"].index) == ["x/mine", "y/mine"]


def test_a_run_may_have_any_name(tmp_path):
    for name in ("reference", "speaker", "language"): made_up(tmp_path/name, .3, noise=2)
    found = c.compare(c.find_runs(f"{tmp_path}/*"))["table"]
    assert found["wer"].nunique() == 1 and .2 < found["wer"].iloc[0] < .4 and set(found["ci_unit"]) == {"speaker"}


def test_translations_are_compared_by_their_own_measure(tmp_path):
    for name, share, noise in (("good", .1, 3), ("like it", .1, 4), ("bad", .5, 5)): made_up(tmp_path/name, share, noise=noise, task="translate")
    found = c.compare([tmp_path/name for name in ("bad", "good", "like it")])
    table = found["table"]
    assert table["chrf"]["bad"] < table["chrf"]["good"] and (table["low"] < table["chrf"]).all() and (table["chrf"] < table["high"]).all()
    assert {(t["one"], t["two"]): t["verdict"] for t in found["tests"]} == {
        ("bad", "good"): "better", ("bad", "like it"): "better", ("good", "like it"): "no difference"}
    best = table["chrf"].idxmax()
    assert f"The highest chrF has {best}: {table['chrf'][best]:.1f} of 100." in found["says"] and "It is better than bad." in found["says"]
    assert c.show_rates(table).get_xlabel() == "chrF, 95 % interval over speakers"
    c.write_comparison(found, tmp_path)
    assert [r["chrf"] for r in json.loads((tmp_path/"compare.json").read_text())["runs"]] == pytest.approx(list(table["chrf"]))
    made_up(tmp_path/"words", .1)
    with pytest.raises(UserError, match="different tasks .good: translate, words: transcribe."): c.compare([tmp_path/"good", tmp_path/"words"])


def test_how_the_languages_were_named(tmp_path):
    "Only where all runs had to detect them, and of the clips whose language is known."
    def heard(name, named, spoken=lambda i: "sw" if i % 2 else "en"):
        made_up(tmp_path/name, .2, noise=2)
        table = pd.read_csv(tmp_path/name/"hypotheses.csv")
        table = table.assign(language=[spoken(i) for i in range(120)], detected=[named(i) for i in range(120)])
        table.to_csv(tmp_path/name/"hypotheses.csv", index=False)
    heard("hears", lambda i: "sw" if i % 2 else "en"); heard("deaf", lambda i: "en")
    made_up(tmp_path/"told", .2, noise=2)
    found = c.compare([tmp_path/"hears", tmp_path/"deaf"])
    assert found["table"]["language_wrong"].tolist() == [0, .5] and found["language_tests"][0]["verdict"] == "worse"
    assert "Of 120 clips, so many were taken for another language: hears 0.0 %, deaf 50.0 %; deaf is worse than hears." in found["says"]
    heard("half known", lambda i: None, lambda i: "Swahili" if i < 60 else None)
    some = c.compare([tmp_path/"half known", tmp_path/"deaf"])
    assert some["table"]["language_wrong"].tolist() == [1, 1] and "Of 60 clips" in " ".join(some["says"])
    assert "no difference that chance does not explain" in " ".join(some["says"])
    for runs in (["hears", "told"], ["told", "deaf"]):
        without = c.compare([tmp_path/name for name in runs])
        assert "language_wrong" not in without["table"] and without["language_tests"] == []


# the job

def test_the_job_makes_one_page(rates, tmp_path):
    out = tmp_path/"compare"
    done = make("run", JOB="compare", OUT=out, ARGS=f"-p runs '{rates}/rate-*'")
    assert done.returncode == 0, done.text
    found = json.loads((out/"compare.json").read_text())
    rows = list(csv.DictReader((out/"compare.csv").open(encoding="utf-8", newline="")))
    assert [r["run"] for r in rows] == [r["run"] for r in found["runs"]] and len(rows) == 5 and len(found["tests"]) == 10
    assert "finished" in json.loads((out/"manifest.json").read_text()) and len(found["unfinished"]) == 3
    page = (out/"report.html").read_text()
    assert done.text.splitlines()[-1] == f"report: {out/'report.html'}"
    assert "rate-1e-2 is not finished" in page and "p_holm" in page and "rate-3e-4" in page
    assert "Warning" not in done.text


def test_the_job_does_not_write_into_a_run(rates, tmp_path):
    before = (rates/"rate-1e-5"/"metrics.json").read_bytes()
    done = make("run", JOB="compare", OUT=tmp_path/"out", ARGS=f"-p runs '{rates}/rate-*' -p out_dir {rates}/rate-1e-5")
    assert done.returncode != 0 and "UserError" in done.text and "holds a run's result" in done.text and "Traceback" not in done.text, done.text
    assert (rates/"rate-1e-5"/"metrics.json").read_bytes() == before
