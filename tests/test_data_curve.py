"How much data do I need: the parts, the law and what is said of it, on made-up numbers with a known truth; and the job."
import json, shutil

import numpy as np, pytest
from conftest import ROOT, cells, make, refused, source
from whisper_tutorial import UserError
from whisper_tutorial.data.corpus import make_corpus
from whisper_tutorial.training import data_curve as dc, finetune as ft
from whisper_tutorial.training.recipe import Recipe, load_recipe

SMOKE = "-y 'smoke: true'"


def people(n_speakers, n_clips, accents=("German", "Hindi", "Scottish", None), **columns):
    return make_corpus([dict(id=f"{s}-{k}", text="…", duration_s=1 + (s*7 + k*3) % 5, speaker=f"voice {s}", accent=accents[s % len(accents)], **columns)
                        for s in range(n_speakers) for k in range(n_clips)], "people")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("by", ["speaker", "clip"])
def test_parts_are_nested_and_as_large_as_they_should_be(by, seed):
    clips = people(64, 10)
    seconds = dict(zip(clips["id"], clips["duration_s"]))
    parts = dc.nested_subsets(clips, [1/8, 1/4, 1/2, 1], by, seed)
    for small, large in zip(list(parts.values()), list(parts.values())[1:]): assert set(small) < set(large)
    for share, ids in parts.items(): assert abs(sum(map(seconds.get, ids))/sum(seconds.values()) - share) < .02
    assert set(parts[1]) == set(clips["id"])
    upside_down = dc.nested_subsets(clips.select(range(len(clips))[::-1]), [1/8, 1/4, 1/2, 1], by, seed)
    assert {k: set(v) for k, v in upside_down.items()} == {k: set(v) for k, v in parts.items()}
    assert parts[1/8] != dc.nested_subsets(clips, [1/8, 1/4, 1/2, 1], by, seed + 10)[1/8]


def test_a_part_by_speakers_has_all_of_a_speaker_and_every_accent_its_share():
    clips = people(64, 10)
    who, accent = (dict(zip(clips["id"], clips[c])) for c in ("speaker", "accent"))
    for share, ids in dc.nested_subsets(clips, [1/8, 1/4, 1/2, 1]).items():
        voices = [who[i] for i in ids]
        assert all(voices.count(v) == 10 for v in set(voices))
        for name in ("German", "Hindi", "Scottish", None): assert abs(len({who[i] for i in ids if accent[i] == name}) - 16*share) <= 1.5


def test_clips_of_unknown_speakers_stand_alone():
    clips = make_corpus([dict(id=str(i), text="…", duration_s=2, speaker="one" if i < 10 else None) for i in range(40)], "some")
    parts = dc.nested_subsets(clips, [1/4, 1/2, 1])
    assert [sum(int(i) < 10 for i in ids) in (0, 10) for ids in parts.values()] == [True]*3 and 15 <= len(parts[1/2]) <= 25


HOURS = np.array([1, 2, 4, 8.])


def world(rng, b=.25, c=0., hours=HOURS, n_speakers=24, run_noise=.03):
    rates = dc.power_law(hours, .4, b, c)*np.exp(run_noise*rng.standard_normal(len(hours)))
    errors = rng.binomial(60, np.clip(rng.gamma(6, 1/6, n_speakers)[:, None]*rates, 0, 1))
    return errors, np.full(n_speakers, 60)


def fitted(errors, words, hours=HOURS, target=None): return dc.fit_curve(hours, errors.sum(0)/words.sum(), dc.resample_rates(errors, words, 400), target)


@pytest.mark.parametrize("b, c, n", [(.25, 0., 4), (.1, 0., 4), (.5, .1, 8), (.25, 0., 6)])
def test_intervals_hold_the_truth(b, c, n):
    "In two hundred worlds: the exponent, and the WER at twice the hours."
    hours = 2.**np.arange(n)
    held = []
    for seed in range(200):
        found = fitted(*world(np.random.default_rng(seed), b, c, hours), hours)
        (low, high), (b_low, b_high) = found["doubling"]["wer_ci95"], found["fit"]["b_ci95"]
        held.append([low <= dc.power_law(2*hours[-1], .4, b, c) <= high, n >= dc.MIN_FLOOR or b_low <= b <= b_high])
    assert np.mean(held, axis=0).min() > .9


def test_what_does_not_show_is_said():
    said = [fitted(*world(np.random.default_rng(seed), b=0.), target=.2) for seed in range(40)]
    silent = ["more of the same data would not show" in " ".join(f["says"]) for f in said]
    assert np.mean(silent) > .9
    assert all(f["target"]["status"] == "not by more of the same data" and f["target"]["hours"] is None for f, s in zip(said, silent) if s)
    worse = fitted(*world(np.random.default_rng(0), b=-.3, n_speakers=200, run_noise=0))
    assert "rises with the data" in " ".join(worse["says"])


def test_a_target_is_answered_as_far_as_it_can_be():
    errors, words = world(np.random.default_rng(1), n_speakers=400)
    near, far, there = (fitted(errors, words, target=t)["target"] for t in (.21, .02, .39))
    low, high = near["interval"]
    assert near["status"] == "within reach" and low < near["hours"] and low < (.4/.21)**4 and (high is None or high > (.4/.21)**4)
    assert far == dict(wer=.02, hours=None, interval=None, status="beyond what was measured")
    assert there["status"] == "reached" and there["hours"] == 2
    json.dumps([near, far, there], allow_nan=False)


def test_one_test_serves_all_sizes():
    "The same draw of the people at every size: what two sizes share is not counted as their difference."
    errors, words = world(np.random.default_rng(0), run_noise=0)
    drawn = dc.resample_rates(np.stack([errors[:, 0]]*2, 1), words)
    assert (drawn[:, 0] == drawn[:, 1]).all() and drawn[:, 0].std() > .01
    assert (dc.resample_rates(errors*0, words) > 0).all()  # no error at all has a logarithm


@pytest.mark.parametrize("call, message", [
    (lambda: dc.read_shares([0, .5, 1]), "above 0 and at most 1"),
    (lambda: dc.read_shares([.5, 1, 2]), "above 0 and at most 1"),
    (lambda: dc.read_shares(["an eighth", .5, 1]), "such as [1/8, 1/4, 1/2, 1]"),
    (lambda: dc.read_shares(["1/0", .5, 1]), "such as [1/8, 1/4, 1/2, 1]"),
    (lambda: dc.read_shares([float("nan"), .5, 1]), "such as [1/8, 1/4, 1/2, 1]"),
    (lambda: dc.read_shares([.5, .5, 1]), "any two points"),
    (lambda: dc.nested_subsets(people(1, 3), [1/8, 1/2, 1], "clip"), "leaves no clip"),
    (lambda: dc.nested_subsets(people(8, 3), [1/100, 1/2, 1]), "leaves no speaker; give larger `shares`"),
    (lambda: dc.nested_subsets(people(8, 3), [.5, .51, 1]), "as the share below it; give larger `shares`, further apart, or -p by clip"),
    (lambda: dc.check_target(-.1), "give a fraction between 0 and 1"),
    (lambda: dc.check_target(15), "such as 0.15 for 15 %"),
    (lambda: dc.resample_rates(np.ones((1, 3)), np.ones(1)), "more clips or speakers"),
    (lambda: dc.plan_curve(load_recipe("quickstart"), by="people"), "give speaker, clip or both")])
def test_what_is_refused(call, message):
    with pytest.raises(UserError) as e: call()
    assert message in str(e.value)


def recipe(out, **more): return load_recipe("quickstart", smoke=True, out_dir=str(out), **more)


def test_a_run_on_some_clips(tmp_path):
    "Validation and test stay whole, and an unfinished run with other clips is refused."
    whole = ft.start(recipe(tmp_path/"whole"))
    ids = whole.sets["train"]["id"][3:9]
    run = ft.start(recipe(tmp_path/"some"), train_ids=ids)
    assert run.sets["train"]["id"][:] == ids and "training on 6 of" in " ".join(run.notes)
    for name in ("validation", "test", "probe"): assert run.sets[name]["id"][:] == whole.sets[name]["id"][:]
    assert ft.start(recipe(tmp_path/"some"), train_ids=ids[::-1]).continued  # a set has no order
    for other in (ids[:5], None):
        with pytest.raises(UserError, match="data_fingerprint: .* then, .* now"): ft.start(recipe(tmp_path/"some"), train_ids=other)
    for wrong in (["no such clip"], []):
        with pytest.raises(UserError, match="are not in the training split"): ft.start(recipe(tmp_path/"none"), train_ids=wrong)
    assert not (tmp_path/"none").exists()


def test_few_speakers_become_clips(tmp_path):
    curve = dc.plan_curve(recipe(tmp_path/"curve", where={"accent": "Hindi"}, probe=None), [1/4, 1/2, 1])
    assert {size["by"] for size in curve.sizes} == {"clip"} and [size["speakers"] for size in curve.sizes] == [4, 4, 4]
    assert "4 known speakers, fewer than 8" in " ".join(curve.notes)
    assert "same 2 steps" in curve.notes[0] and "1.5 passes" in dc.held_equal(load_recipe(epochs=1.5))


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")/"curve"
    return out, make("run", JOB="data_curve", OUT=out, ARGS=f"{SMOKE} -p target_wer 0.1")


def test_the_job(job):
    out, done = job
    assert done.returncode == 0, done.text
    assert done.text.splitlines()[-1] == f"report: {out}/report.html" and "unknown parameter" not in done.text
    found = json.loads((out/"data_curve.json").read_text())
    curve, = found["curves"].values()
    assert [size["share"] for size in curve["sizes"]] == [.125, .25, .5, 1] and found["before"]["wer_norm"] > 0
    hours = [size["hours"] for size in curve["sizes"]]
    assert hours == sorted(hours) and curve["doubling"]["hours"] == pytest.approx(2*hours[-1]) and curve["target"]["wer"] == .1
    tests = set()
    for size in curve["sizes"]:
        folder = out/size["run"]
        metrics, manifest = (json.loads((folder/f"{n}.json").read_text()) for n in ("metrics", "manifest"))
        assert size["wer"] == metrics["after"]["wer_norm"] and size["steps"] == 2
        assert manifest["clips"]["train"] == size["clips"] and (folder/"report.html").exists()
        tests.add(tuple(line.split(",")[0] for line in (folder/"hypotheses.csv").read_text().splitlines()))
    assert len(tests) == 1
    errors, words, unit = dc.paired_errors([out/size["run"] for size in curve["sizes"]], "en")
    assert np.allclose(errors.sum(0)/words.sum(), [size["wer"] for size in curve["sizes"]]) and unit == "clip"
    page = (out/"report.html").read_text()
    for sentence in curve["says"]: assert sentence.split(" (")[0] in page


def test_an_interrupted_curve_goes_on(job):
    "A finished size is left as it is; what is missing is made again, with the same result."
    out, first = job
    assert first.returncode == 0
    whole = json.loads((out/"data_curve.json").read_text())
    shutil.rmtree(out/"size-0.5")
    manifest = json.loads((out/"manifest.json").read_text()); del manifest["finished"]
    (out/"manifest.json").write_text(json.dumps(manifest))
    kept = {p: p.stat().st_mtime_ns for p in out.glob("size-*/model/model.safetensors")}
    assert dc.data_curve(recipe(out), target_wer=.1) == whole
    assert {p: p.stat().st_mtime_ns for p in kept} == kept and len(kept) == 3 and (out/"size-0.5/metrics.json").exists()
    shutil.rmtree(out/"size-0.25"); shutil.copytree(out/"size-1", out/"size-0.25")  # of other clips: not taken for this size's
    manifest = json.loads((out/"size-0.125/manifest.json").read_text()) | dict(model_fingerprint="another base")
    (out/"size-0.125/manifest.json").write_text(json.dumps(manifest))
    assert dc.data_curve(recipe(out), target_wer=.1) == whole
    assert json.loads((out/"size-0.125/manifest.json").read_text())["model_fingerprint"] != "another base"


def test_runs_on_other_test_clips_are_not_compared(job, tmp_path):
    out, _ = job
    text = (out/"size-1/hypotheses.csv").read_text().splitlines()
    (tmp_path/"other").mkdir(); (tmp_path/"other/hypotheses.csv").write_text("\n".join(text[:1] + text[2:]) + "\n")
    with pytest.raises(UserError, match="other test clips"): dc.paired_errors([out/"size-1", tmp_path/"other"], "en")


@pytest.mark.parametrize("args, message", [
    ("-p target_wer -0.1", "`target_wer` is -0.1"),
    ("-p by people", "give speaker, clip or both"),
    ("-p share 0.5", "Did you mean `shares`?"),
    ("-y 'shares: [0.0001, 0.5, 1]'", "leaves no speaker")])
def test_the_job_refuses(args, message, tmp_path):
    assert message in refused(make("run", JOB="data_curve", OUT=tmp_path/"run", ARGS=f"{SMOKE} {args}"))
    assert [p.name for p in (tmp_path/"run").iterdir()] == ["data_curve.ipynb"]  # nothing has begun


def test_the_job_has_the_keys_of_a_recipe_and_three_of_its_own():
    import ast
    cell, = [c for c in cells(ROOT/"nbs/runs/data_curve.ipynb") if "parameters" in c["metadata"].get("tags", [])]
    found = {line.target.id: ast.literal_eval(line.value) for line in ast.parse(source(cell)).body}
    own = {name: found.pop(name) for name in ("shares", "by", "target_wer")}
    assert found == {name: field.default for name, field in Recipe.model_fields.items()} | {"out_dir": "_runs/curve"}
    assert own == dict(shares=[.125, .25, .5, 1.], by="speaker", target_wer=None)
