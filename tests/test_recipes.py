"Each published recipe, at smoke size, as a user calls it: its marks lie in the run's folder. And the container."
import json, re, shlex, tomllib
from pathlib import Path

import pytest, torch
from conftest import BIN, ROOT, make, sh
from test_jobs import SMOKE, check_run
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from whisper_tutorial.training.recipe import load_recipe

RECIPES = sorted((ROOT/"nbs/recipes").glob("*.yaml"))
PUBLISHED = {
    "large-v2-8xa100": dict(
        model="openai/whisper-large-v2", gpus=8, gradient_accumulation=4, learning_rate=5e-5, min_learning_rate=1e-6, warmup_share=.05,
        schedule="cosine", precision="bf16", suite="fifteen"),
    "common-voice-event": dict(
        model="openai/whisper-small", steps=5000, learning_rate=1e-5, warmup_share=500/5000, schedule="linear", batch_windows=64,
        gradient_accumulation=1, deepspeed="zero2_offload", gradient_checkpointing=True, validate_steps=1000, keep="best_wer"),
    "dvoice-darija": dict(
        model="openai/whisper-small", data="zenodo:5482551", steps=4000, learning_rate=1e-5, warmup_share=500/4000, dialect=None, language="ar"),
    "afrispeech-isizulu-lora": dict(
        model="openai/whisper-small", language="en", adapter="lora", lora_rank=32, quantize="8bit", learning_rate=1e-3, epochs=3, batch_windows=8),
    "gigaspeech-scratch": dict(model="new", epochs=10, learning_rate=2e-4, n_state=384, n_head=6, n_layer=6, n_text_ctx=64, dropout=.1),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name):
    recipe = load_recipe(name).model_dump()
    assert {k: recipe[k] for k in PUBLISHED[name]} == PUBLISHED[name]
    small = load_recipe(name, smoke=True)
    assert small.steps == 2 and small.batch_windows <= 8 and small.data == "common_voice:data/accents" and small.model in ("data/nano", "new")


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_says_where_it_comes_from(path):
    head = re.match(r"(#.*\n)+", path.read_text(encoding="utf-8"))[0].splitlines()
    assert head[1].startswith("# Source: ") or head[2].startswith("# Source: ")
    commands = re.findall(r"RECIPE=([\w-]+)", "\n".join(head))
    assert set(commands) <= {path.stem, *(p.stem for p in RECIPES)}
    assert max(map(len, path.read_text(encoding="utf-8").splitlines())) <= 150
    for name in re.findall(r"nbs/[\w/]+\.ipynb", path.read_text(encoding="utf-8")): assert (ROOT/name).exists(), name


def test_large_v2_adds_up():
    "8 GPUs × 4 windows of 30 s × 4 micro-batches; a step hears as much in both stages; three weeks at 372 times real time."
    recipe = load_recipe("large-v2-8xa100")
    share = recipe.gpus*recipe.gradient_accumulation
    assert [stage["batch_windows"]/share for stage in recipe.windows] == [4, 2] and recipe.micro_batch == 2
    assert [stage["batch_windows"]*(stage["seconds"] or recipe.window_s) for stage in recipe.windows] == [128*30]*2
    hours, head = 1.5e6, (ROOT/"nbs/recipes/large-v2-8xa100.yaml").read_text()
    assert f"{hours*3600/(128*30):,.0f} steps" in head and f"{hours/(recipe.gpus*21*24):.0f} times real time" in head
    n = 1_543_304_960  # parameters, counted by transformers
    assert all(f"{gb/1e9:.1f}" in head for gb in (2*n, 4*n, 8*n, (4*n + 8*n)/8))  # bf16, float32, Adam, what zero1 leaves to each
    assert f"leaves {80 - (2*n + 4*n + 12*n/8)/1e9:.0f} of 80 GB" in head


def run(name, tmp_path, args=""):
    out = tmp_path/"run"
    done = make("run", RECIPE=name, OUT=out, ARGS=f"{SMOKE} {args}")
    assert done.returncode == 0, done.text
    return out, *check_run(out, "finetune.ipynb")


def shards(out):
    "The pieces of the optimizer's states that DeepSpeed has written with the last checkpoint: one for each process."
    last = max((out/"checkpoints").glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    return len(list(last.rglob("*optim_states.pt")))


def load(out, name="model"):
    folder = out/name
    return WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32), WhisperProcessor.from_pretrained(folder)


def test_large_v2_shares_a_step_among_processes_and_hears_60_s(tmp_path):
    out, recipe, manifest, metrics = run("large-v2-8xa100", tmp_path)
    assert (recipe["gpus"], recipe["gradient_accumulation"], recipe["deepspeed"], recipe["batch_windows"]) == (2, 4, "zero1", 8)
    assert shards(out) == 2
    assert [(w["seconds"], w["steps"], w["batch_windows"]) for w in manifest["windows"]] == [(30, 1, 8), (60, 1, 8)]
    assert manifest["dtype"] == "bfloat16"
    model, processor = load(out)
    assert model.config.max_source_positions == 3000 and processor.feature_extractor.chunk_length == 60
    added, known = processor.tokenizer.get_vocab(), WhisperProcessor.from_pretrained(ROOT/"data/nano").tokenizer.get_vocab()
    assert set(added) - set(known) == {"<|en-ma|>", *load_recipe("large-v2-8xa100").new_words}  # of a dialect of English: the embedded corpus is
    assert model.config.vocab_size == len(added) == len(known) + 5
    assert recipe["suite"] == "accents" and len(metrics["suite"]) == 8  # fifteen needs a network
    assert all(row["before"] is not None and row["after"] is not None for row in metrics["suite"])
    assert {p.name for p in (out/"suite").iterdir()} == {"suite.csv", "suite.md", "suite.tex", "README.md"}


def test_the_event_offloads_compiles_and_keeps_the_best(tmp_path):
    out, recipe, manifest, metrics = run("common-voice-event", tmp_path)
    assert (recipe["gpus"], recipe["deepspeed"], recipe["compile"]) == (1, "zero2_offload", True)
    assert (recipe["specaugment"], recipe["strategy"], recipe["keep"], recipe["validate_steps"]) == ("basic", "best_fit", "best_wer", 1000)
    assert shards(out) == 1
    assert [(w["seconds"], w["steps"], w["batch_windows"]) for w in manifest["windows"]] == [(30, 2, 8)]
    log = [json.loads(line) for line in (out/"metrics.jsonl").read_text().splitlines()]
    assert "validation_loss" in log[-1]
    assert list(out.rglob("*tfevents*")), "report_to: tensorboard"
    before, _ = load(ROOT, "data/nano")
    model, _ = load(out)
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in before.named_parameters()]  # no trace of torch.compile in the names


def test_dvoice_is_the_standard_way(tmp_path):
    out, recipe, manifest, metrics = run("dvoice-darija", tmp_path)
    assert (recipe["dialect"], recipe["strategy"], recipe["warmup_share"], recipe["schedule"]) == (None, "single", .125, "linear")
    assert [(w["seconds"], w["steps"], w["batch_windows"]) for w in manifest["windows"]] == [(30, 2, 8)]
    assert metrics["train"]["fill"] < .15  # one clip of some 2 s in each window of 30 s
    _, processor = load(out)
    assert processor.tokenizer.get_vocab() == WhisperProcessor.from_pretrained(ROOT/"data/nano").tokenizer.get_vocab()
    assert None not in (metrics["before"]["wer_raw"], metrics["after"]["wer_raw"], metrics["before"]["wer_norm"], metrics["after"]["wer_norm"])


def test_afrispeech_changes_what_lora_adapts_and_nothing_else(tmp_path):
    out, recipe, manifest, metrics = run("afrispeech-isizulu-lora", tmp_path, "-p warmup_share 0 -p learning_rate 1e-2")
    assert (recipe["adapter"], recipe["lora_rank"], recipe["quantize"]) == ("lora", 32, "8bit")
    before, after = (dict(load(*place)[0].named_parameters()) for place in ((ROOT, "data/nano"), (out, "model")))
    assert set(before) == set(after)  # merged: loads without peft
    adapted = {n for n in after if re.search(r"\.[qv]_proj\.weight$", n)}
    linear = {n for n in after if re.search(r"(_proj|fc[12])\.weight$", n)}  # these are what 8 bits round
    for name in set(after) - linear:  # two steps of Adam would move them by 2e-2, halves of the precision by less than this
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=5e-3, msg=f"{name} has changed")
    def moved(names): return sum((after[n] - before[n]).norm().item()**2 for n in names)/len(names)
    assert moved(adapted) > 4*moved(linear - adapted)
    assert None not in (metrics["before"]["wer_raw"], metrics["after"]["wer_raw"], metrics["before"]["wer_norm"], metrics["after"]["wer_norm"])


# the container, as far as can be seen without docker

def instructions():
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT/"Dockerfile").read_text())
    return [line.split(None, 1) for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def of(kind): return [rest for name, rest in instructions() if name == kind]


def test_the_container_is_built_and_entered_by_make():
    targets = re.findall(r"(?m)^([a-z-]+):", (ROOT/"Makefile").read_text())
    called = [rest.split()[1] for rest in of("RUN") if rest.startswith("make ")]
    assert called == ["install"] and set(called) <= set(targets)
    entry, = map(json.loads, of("ENTRYPOINT"))
    command, = map(json.loads, of("CMD"))
    assert entry == ["make", "--no-print-directory", "run"] and entry[-1] in targets
    done = sh(*entry[:2], "-n", "-o", f"{BIN.parent}/installed", *entry[2:], *command, f"VENV={BIN.parent}")
    assert done.returncode == 0 and "nbs/recipes/quickstart.yaml" in done.text, done.text


def test_the_container_holds_what_it_needs_and_nothing_private():
    ignored = [l for l in (ROOT/".dockerignore").read_text().splitlines() if l and not l.startswith("#")]
    assert {".venv", "_runs", ".env"} <= set(ignored)  # neither built things nor what a user has made
    copied = []
    for rest in of("COPY"):
        *sources, place = [w for w in shlex.split(rest) if not w.startswith("--")]
        assert "--chown=user" in rest
        copied += sources
        for source in sources: assert (ROOT/source).exists() and source not in ignored, source
    read = {"Makefile", "pyproject.toml", "constraints.txt"} | set(re.findall(r'"(README\.md|LICENSE)"', (ROOT/"pyproject.toml").read_text()))
    assert read | {"data", "whisper_tutorial", "."} == set(copied) and copied[-1] == "."
    assert not [name for name in re.findall(r"(?m)^(?:ARG|ENV) (.*)", (ROOT/"Dockerfile").read_text()) if re.search("TOKEN|KEY|SECRET|PASS", name)]
    for token in ("HF_TOKEN", "MDC_API_KEY", "ZENODO_TOKEN"): assert f"-e {token} " in (ROOT/"Dockerfile").read_text()


def test_the_container_runs_as_a_user_who_may_write_its_runs():
    kinds = [name for name, _ in instructions()]
    user, = of("USER")
    assert user == "user" and kinds.index("USER") < kinds.index("COPY")
    home, = of("WORKDIR")
    volumes, = map(json.loads, of("VOLUME"))
    made, = [rest for rest in of("RUN") if "useradd" in rest]
    assert f"{home}/_runs" in volumes and all(f" {volume}" in made.split("su user -c")[1] for volume in volumes)
    image, = of("FROM")
    version = tuple(map(int, re.match(r"python:(\d+)\.(\d+)-", image).groups()))
    floor = tomllib.loads((ROOT/"pyproject.toml").read_text())["project"]["requires-python"]
    assert version >= tuple(map(int, floor.removeprefix(">=").split(".")))
