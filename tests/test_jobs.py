"The jobs as a user calls them, at smoke size: exit codes, what the terminal shows, what lies in the run's folder."
import csv, json, os
from pathlib import Path

import pytest, yaml
from conftest import ROOT, make, own_recordings, refused
from whisper_tutorial.training.recipe import Recipe

SMOKE = "-y 'smoke: true'"
FILES = ("recipe.yaml", "manifest.json", "metrics.jsonl", "metrics.json", "hypotheses.csv", "quarantine.csv", "report.html",
         "checkpoints", "model/config.json", "model/model.safetensors", "model/preprocessor_config.json")
RATES = ("wer_raw", "wer_norm", "cer_raw", "cer_norm")
SCORE = {*RATES, *(f"{r}_ci95" for r in RATES), "substitutions", "deletions", "insertions", "ci_unit", "ci_scope", "n_clips", "n_speakers"}


def rows(path): return list(csv.DictReader(path.open(encoding="utf-8", newline="")))


def check_run(run, notebook):
    "A run's folder is complete and agrees with itself."
    for name in (*FILES, notebook): assert (run/name).exists(), name
    recipe, manifest, metrics = yaml.safe_load((run/"recipe.yaml").read_text()), *(json.loads((run/f"{n}.json").read_text()) for n in ("manifest", "metrics"))
    assert set(recipe) | {"out_dir"} == {*Recipe.model_fields, "out_dir"}
    assert {"seconds", "peak_memory_bytes", "torch_threads", "dtype", "versions", "commit", "data_fingerprint", "seed", "hardware", "finished"} <= set(manifest)
    assert {"all", "train", "after"} <= set(manifest["seconds"])
    log = [json.loads(line) for line in (run/"metrics.jsonl").read_text().splitlines()]
    assert log[0]["step"] == 1 and {"step", "loss", "grad_norm", "learning_rate"} <= set(log[0])
    assert {"before", "after", "by_group", "probe", "forgetting", "train"} == set(metrics) - {"suite"} and ("suite" in metrics) == bool(recipe["suite"])
    assert set(metrics["before"]) == set(metrics["after"]) == SCORE
    assert {"steps", "audio_s", "fill", "final_loss"} <= set(metrics["train"])
    said = rows(run/"hypotheses.csv")
    assert [*said[0]][:7] == ["id", "set", "speaker", "accent", "reference", "before", "after"]
    assert sum(r["set"] == "test" for r in said) == metrics["after"]["n_clips"]
    page = (run/"report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") and "<script src" not in page and "<link" not in page
    return recipe, manifest, metrics


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")/"mine"
    return out, make("run", OUT=out, ARGS=SMOKE)


def test_finetune_leaves_a_folder_that_explains_itself(finetuned):
    run, done = finetuned
    assert done.returncode == 0, done.text
    recipe, manifest, metrics = check_run(run, "finetune.ipynb")
    assert recipe["smoke"] is True and recipe["steps"] == 2 and metrics["train"]["steps"] == 2
    forgotten = metrics["forgetting"]
    assert {s: forgotten[s] for s in ("before", "after")} == {s: metrics["probe"][s]["wer_norm"] for s in ("before", "after")}
    assert forgotten["n_clips"] == metrics["probe"]["after"]["n_clips"] and forgotten["verdict"] in ("better", "worse", "no difference")


def test_the_terminal_ends_with_the_result(finetuned):
    run, done = finetuned
    *_, last = done.text.splitlines()
    assert last == f"report: {run/'report.html'}"
    assert "before" in done.text and "after" in done.text and "WER" in done.text
    assert "WARNING" not in done.text and "Traceback" not in done.text and "IPKernelApp" not in done.text, done.text
    assert "2/2" in done.text, "the training's progress is seen"


def test_the_model_is_what_others_load(finetuned):
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor
    run, _ = finetuned
    model, processor = WhisperForConditionalGeneration.from_pretrained(run/"model"), WhisperProcessor.from_pretrained(run/"model")
    assert model.config.max_source_positions == 1500 and model.config.use_cache
    mel = processor(torch.zeros(16_000).numpy(), sampling_rate=16_000, return_tensors="pt").input_features
    assert model.generate(mel, language="en", task="transcribe", max_new_tokens=4).shape[0] == 1


def test_a_finished_run_starts_over_in_place(finetuned):
    run, first = finetuned
    assert first.returncode == 0
    done = make("run", OUT=run, ARGS=f"{SMOKE} -p seed 1")  # another recipe: the folder is free, because its run is finished
    assert done.returncode == 0, done.text
    recipe, manifest, _ = check_run(run, "finetune.ipynb")
    assert recipe["seed"] == manifest["seed"] == 1
    assert [json.loads(l)["step"] for l in (run/"metrics.jsonl").read_text().splitlines()] == [1, 2]


def test_quickstart(tmp_path):
    done = make("quickstart", OUT=tmp_path/"run", ARGS=SMOKE)
    assert done.returncode == 0, done.text
    check_run(tmp_path/"run", "quickstart.ipynb")
    assert done.text.splitlines()[-1] == f"report: {tmp_path/'run'/'report.html'}"


def test_pretrain(tmp_path):
    done = make("run", JOB="pretrain", RECIPE="nano", OUT=tmp_path/"run", ARGS=f"{SMOKE} -p data folder:{tmp_path}/speech -p publish {tmp_path}/nano")
    assert done.returncode == 0, done.text
    _, _, metrics = check_run(tmp_path/"run", "pretrain.ipynb")
    assert metrics["before"]["wer_norm"] is None  # random weights are not measured
    for name in ("README.md", "recipe.yaml", "manifest.json", "metrics.jsonl", "model.safetensors", "tokenizer.json"): assert (tmp_path/"nano"/name).exists(), name


def test_a_recipe_from_random_weights_brings_its_own_data(tmp_path):
    "At smoke size the hub's corpus becomes the embedded one; nothing is synthesized."
    done = make("run", JOB="pretrain", RECIPE="gigaspeech-scratch", OUT=tmp_path/"run", ARGS=SMOKE)
    assert done.returncode == 0, done.text
    recipe, manifest, metrics = check_run(tmp_path/"run", "pretrain.ipynb")
    config = json.loads((tmp_path/"run/model/config.json").read_text())
    assert (config["vocab_size"], config["max_target_positions"], config["max_source_positions"], config["dropout"], config["attention_dropout"]) == (50262, 64, 250, .1, .1)
    assert (recipe["data"], recipe["epochs"], recipe["learning_rate"], recipe["steps"]) == ("common_voice:data/accents", 10, 2e-4, 2)
    assert manifest["windows"][0]["seconds"] == 5 and not (tmp_path/"run/speech").exists()
    assert recipe["text_style"] == "lower" and all(r["reference"] == r["reference"].lower() for r in rows(tmp_path/"run/hypotheses.csv"))
    first = json.loads((tmp_path/"run/metrics.jsonl").read_text().splitlines()[0])
    assert abs(first["loss"] - 10.82) < .5  # the logarithm of 50,262


def test_make_accents(tmp_path):
    from whisper_tutorial.data.corpus import load_corpus
    done = make("accents", OUT=tmp_path/"run", ARGS=f"{SMOKE} -p out_dir {tmp_path}/accents")
    assert done.returncode == 0, done.text
    made, shipped = load_corpus(f"common_voice:{tmp_path}/accents"), load_corpus("common_voice:data/accents")
    assert set(made["split"]) == set(shipped["split"]) == {"train", "validation", "test"}
    tables = {p.name: p.read_text().splitlines()[0] for p in (ROOT/"data/accents").rglob("*.tsv")}
    assert {p.name: p.read_text().splitlines()[0] for p in (tmp_path/"accents").rglob("*.tsv")} == tables


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    "Forty clips of a user, four of which cannot be trained on."
    folder = own_recordings(tmp_path_factory.mktemp("own")/"clips", ("German", "Hindi"), train=10, test=8)
    names = sorted(folder.glob("*.mp3"))
    for broken in names[:3]: broken.write_bytes(b"no sound"*50)
    names[3].unlink()
    out = tmp_path_factory.mktemp("run")/"mine"
    return folder, out, make("prepare", OUT=out, ARGS=f"-p data folder:{folder}")


def test_prepare_loses_no_clip(prepared):
    from whisper_tutorial.data.corpus import fingerprint, load_corpus
    folder, run, done = prepared
    assert done.returncode == 0, done.text
    assert done.text.splitlines()[-1] == f"report: {run/'report.html'}"
    manifest, aside = json.loads((run/"manifest.json").read_text()), rows(run/"quarantine.csv")
    assert manifest["clips"] == dict(found=36, kept=32, quarantined=4, written=32) and manifest["finished"]
    assert [r["reason"].split(":")[0] for r in aside].count("cannot be decoded") == 3 and all(r["reason"] for r in aside)
    corpus = load_corpus(f"folder:{run}/corpus")
    assert not {*corpus["id"]} & {r["id"] for r in aside}
    assert len(corpus) == 32 and fingerprint(corpus) == manifest["fingerprint_written"]
    assert set(corpus["split"]) == {"train", "validation", "test"}  # the second was not there


def test_prepare_again_and_train_on_it(prepared):
    folder, run, _ = prepared
    done = make("prepare", OUT=run, ARGS=f"-p data folder:{folder} -y 'quarantine: [wrong language]' -p seed 1")
    assert done.returncode == 0, done.text
    from whisper_tutorial.training import finetune as ft
    from whisper_tutorial.training.recipe import load_recipe
    begun = ft.start(load_recipe("quickstart", smoke=True, data=f"folder:{run}/corpus", probe=None, out_dir=str(run.parent/"trained")))
    assert len(begun.quarantined) == 0


@pytest.mark.parametrize("args, message", [
    ("-y 'quarantine: [silnt]'", "Did you mean `silent`?"),
    ("-y 'weights: {acents: 1}'", "`weights` names 'acents'"),
    ("-p data zenod:1342401", "Did you mean `zenodo`?")])
def test_prepare_refuses(args, message, tmp_path):
    assert message in refused(make("prepare", OUT=tmp_path/"run", ARGS=f"{SMOKE} {args}"))
    assert [p.name for p in (tmp_path/"run").iterdir()] == ["prepare.ipynb"]  # nothing has begun


def test_bench(tmp_path):
    done = make("bench", OUT=tmp_path/"run", ARGS=SMOKE)
    assert done.returncode == 0, done.text
    found = json.loads((tmp_path/"run/benchmarks.json").read_text())
    assert all(row["rate"] > 0 for row in found["speed"])
    assert [row["way"] for row in found["accuracy"]] == ["before", *2*["in order", "short windows first"]]
    assert all(0 <= row[kind] and row["clips"] > 0 for row in found["accuracy"][1:] for kind in ("single", "joined", "cut"))


SPEECH = os.environ.get("WHISPER_TUTORIAL_SPEECH")


@pytest.mark.skipif(not SPEECH, reason="WHISPER_TUTORIAL_SPEECH names no folder of real speech")
@pytest.mark.parametrize("source", ["fsdd", "speechocean762"])
def test_real_speech(source, tmp_path):
    done = make("run", OUT=tmp_path/"run", ARGS=f"{SMOKE} -p data folder:{SPEECH} -y 'where: {{source: {source}}}' -y 'probe: null'")
    assert done.returncode == 0, done.text
    recipe, _, metrics = check_run(tmp_path/"run", "finetune.ipynb")
    assert recipe["where"] == {"source": source} and metrics["probe"] is None


def test_pretrain_never_replaces_a_folder(tmp_path):
    "Speech is made where none is; a folder that is there is the user's, whatever it is called."
    folder = own_recordings(tmp_path/"speech", train=6, test=4)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    done = make("run", JOB="pretrain", RECIPE="nano", OUT=tmp_path/"run", ARGS=f"{SMOKE} -p data folder:{folder}")
    assert done.returncode == 0, done.text
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    done = make("run", JOB="pretrain", RECIPE="nano", OUT=tmp_path/"other", ARGS=f"{SMOKE} -p data folder:{tmp_path}/typo/speech")
    assert done.returncode and "typo/speech` does not exist" in done.text and not (tmp_path/"typo").exists()
