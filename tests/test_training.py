"What a training does besides stepping: it measures, chooses, stops, and says why."
import json, re, resource

import pandas as pd, pytest, torch
from conftest import ROOT, make, own_recordings, refused
from safetensors.torch import load_file
from transformers import WhisperForConditionalGeneration
from whisper_tutorial import UserError
from whisper_tutorial.data.corpus import with_column
from whisper_tutorial.training import finetune as ft
from whisper_tutorial.training.recipe import load_recipe


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return own_recordings(tmp_path_factory.mktemp("own")/"clips", ("German", "American"), train=8, validation=3, test=2)


@pytest.fixture
def recipe(clips, tmp_path):
    def make_one(**values):
        usual = dict(data=f"folder:{clips}", language="en", steps=6, checkpoint_steps=2, batch_windows=2, learning_rate=1e-4, out_dir=str(tmp_path/"run"),
                     windows=[dict(share=.8, seconds=4), dict(share=.2, seconds=None)])
        return load_recipe(**usual | values)
    return make_one


def log(recipe): return ft.read_log(f"{recipe.out_dir}/metrics.jsonl")


def weights(recipe): return load_file(f"{recipe.out_dir}/model/model.safetensors")


def manifest(recipe): return json.loads(open(f"{recipe.out_dir}/manifest.json").read())


def test_eight_gpus_where_there_are_none(tmp_path):
    said, found = refused(make("run", RECIPE="large-v2-8xa100", OUT=tmp_path/"run")), torch.cuda.device_count()
    assert f"the recipe asks for 8 GPUs, and this machine has {found}." in said
    assert "-p gpus 1 -p gradient_accumulation 32" in said or found
    assert not (tmp_path/"run/recipe.yaml").exists()


def test_a_full_disk_leaves_the_checkpoint_before(recipe):
    r, (soft, hard) = recipe(), resource.getrlimit(resource.RLIMIT_FSIZE)
    def fill(lines):
        if lines[-1]["step"] == 3: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))  # no file may be larger
    try:
        with pytest.raises(UserError, match=r"step 4 could not be written .* Make room .* \(checkpoint-2\)"): ft.finetune(r, fill)
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ft.last_checkpoint(f"{r.out_dir}/checkpoints").name == "checkpoint-2"
    ft.finetune(r)  # there is room again: the same command
    assert [l["step"] for l in log(r)] == list(range(1, 7))


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(recipe):
    r = recipe(steps=40, learning_rate=3e4, warmup_share=.3)
    with pytest.raises(UserError, match=r"the loss or its gradient .* lower `learning_rate`, now 30000") as e: ft.finetune(r)
    assert len(log(r)) < 40
    kept = re.search(r"checkpoint is (\S+)", str(e.value))[1]
    state = WhisperForConditionalGeneration.from_pretrained(kept).state_dict()
    assert all(torch.isfinite(v).all() for v in state.values())
    ft.load_model(kept)  # a run can start from it


@pytest.mark.parametrize("counted", [True, False])
def test_a_run_that_has_forgotten_everything_is_not_given_another_chance(counted, recipe, monkeypatch):
    "Three lines above a deaf model's loss are the end, although the run was interrupted after the first of them."
    monkeypatch.setattr(ft, "baseline", lambda run: None)
    r = recipe(steps=12, learning_rate=.01, warmup_share=0, windows=None)
    def die(lines):
        if len(lines) == 3: raise KeyboardInterrupt
    # every loss that is above the first is a deaf model's
    monkeypatch.setattr(ft.Progress, "deaf", property(lambda self: self.lines[0]["loss"] + 1e-6 if self.lines else 0, lambda self, _: None), raising=False)
    with pytest.raises(KeyboardInterrupt): ft.finetune(r, die)
    if not counted:
        whole = ft.resolve(r.out_dir)/"checkpoints/checkpoint-2/whole.json"
        state = json.loads(whole.read_text())
        whole.write_text(json.dumps({k: v for k, v in state.items() if k != "loss_above"}))  # of an older version
    with pytest.raises(UserError, match=f"stays above .* at step {4 if counted else 5};"): ft.finetune(r)


def test_the_last_good_checkpoint_is_the_one_from_before(recipe, monkeypatch):
    "A checkpoint of a model that has gone deaf pushes no good one out, and is not called good."
    monkeypatch.setattr(ft, "baseline", lambda run: None)
    r = recipe(steps=12, checkpoint_steps=1, learning_rate=1e-4, warmup_share=0, windows=None)
    class Deaf(ft.Progress):
        def on_log(self, args, state, control, logs, **kw):
            if "loss" in logs and state.global_step > 4: logs = logs | dict(loss=99.)
            super().on_log(args, state, control, logs, **kw)
    monkeypatch.setattr(ft, "Progress", Deaf)
    with pytest.raises(UserError, match=r"stays above .* at step 7; .* The last good checkpoint is .*checkpoint-4$"): ft.finetune(r)


def test_adalora_logs_the_loss_of_the_words(recipe, tmp_path, monkeypatch):
    "What pulls its matrices together is learnt from, and not counted."
    monkeypatch.setattr(ft, "baseline", lambda run: None); monkeypatch.setattr(ft, "finish", lambda *_: None)
    for name in ("lora", "adalora"): ft.finetune(recipe(adapter=name, learning_rate=1e-3, out_dir=str(tmp_path/name)))
    one, two = ([line["loss"] for line in ft.read_log(tmp_path/name/"metrics.jsonl")] for name in ("lora", "adalora"))
    assert two[0] == pytest.approx(one[0], rel=1e-5) and len(two) == 6 and max(two) < 1


def test_a_long_run_is_looked_at_often_enough(recipe):
    run = ft.start(recipe())
    run.windows.filled[0]["steps"] = 1_406_250  # as large-v2 on 1.5 million hours
    assert ft.Progress(run).every == 100 < load_recipe("large-v2-8xa100").checkpoint_steps


def test_out_of_memory_says_which_key(recipe, monkeypatch):
    def full(*_, **__): raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
    monkeypatch.setattr(ft.WhisperForConditionalGeneration, "forward", full)
    monkeypatch.setattr(ft, "baseline", lambda run: None)
    with pytest.raises(UserError, match="out of memory: 2 windows of 30 s at a time need about .* GB"): ft.finetune(recipe())


def test_the_best_weights_are_chosen_on_validation(recipe):
    r = recipe(steps=20, learning_rate=5e-3, warmup_share=0, schedule="linear", validate_steps=2, keep="best_loss", patience=3, report_to=["tensorboard"])
    ft.finetune(r)
    lines = log(r)
    measured = {l["step"]: l["validation_loss"] for l in lines if "validation_loss" in l}
    best = min(measured, key=measured.get)
    assert lines[-1]["step"] < 20 and sum(step > best for step in measured) == 3, measured  # stopped early
    done = json.loads(open(f"{r.out_dir}/metrics.json").read())["train"]
    assert done["steps"] == lines[-1]["step"] == sum(w["steps"] for w in manifest(r)["windows"])  # as it ran, not as it was planned
    kept = load_file(f"{r.out_dir}/checkpoints/checkpoint-{best}/model.safetensors")
    final = weights(r)
    assert all(torch.equal(final[k].float(), kept[k].float()) for k in kept)
    import tensorboard.backend.event_processing.event_accumulator as events
    found = events.EventAccumulator(f"{r.out_dir}/tensorboard").Reload()
    assert [e.step for e in found.Scalars("train/loss")] == list(range(1, lines[-1]["step"] + 1))
    assert {e.step: pytest.approx(e.value) for e in found.Scalars("train/validation_loss")} == measured


def test_nothing_is_chosen_on_the_test_split(recipe, monkeypatch):
    "What is looked at between the baseline and the verdict: for the loss, by decoding, and for the share of the new weights."
    run = ft.start(recipe(steps=4, validate_steps=2, keep="best_wer", patience=5, interpolate="auto", probe={"accent": "American"}))
    seen, windows, decode = dict(loss=set(), decoded=set()), ft.TrainingWindows, ft.decode_set
    def laid_out(clips, *args, **more): seen["loss"] |= set(clips["id"]); return windows(clips, *args, **more)
    def decoded(run, clips, *args): seen["decoded"] |= set(clips["id"]); return decode(run, clips, *args)
    monkeypatch.setattr(ft, "TrainingWindows", laid_out); monkeypatch.setattr(ft, "decode_set", decoded)
    ft.train(run)
    held_out, validation = {*run.sets["test"]["id"], *run.sets["probe"]["id"]}, set(run.sets["validation"]["id"])
    assert held_out and seen["loss"] == seen["decoded"] == validation and not held_out & validation


def test_decoding_chooses_too(recipe):
    r = recipe(steps=4, validate_steps=2, keep="best_wer")
    ft.finetune(r)
    assert [l["step"] for l in log(r) if 0 <= l.get("validation_wer", -1)] == [2, 3, 4]


def test_the_share_of_new_weights_is_chosen(recipe):
    r = recipe(interpolate="auto", learning_rate=5e-3, probe={"accent": "American"})
    ft.finetune(r)
    curve = json.loads(open(f"{r.out_dir}/interpolation.json").read())
    assert [p["share"] for p in curve] == list(ft.SHARES) and all(0 <= p[k] for p in curve for k in ("validation", "probe"))
    chosen = manifest(r)["interpolate"]
    assert min(p["validation"] + p["probe"] for p in curve) == next(p["validation"] + p["probe"] for p in curve if p["share"] == chosen)
    assert any("was best on validation and probe" in note for note in manifest(r)["notes"])


@pytest.mark.parametrize("probe, says", [
    (None, "was best on validation; whether it has forgotten what it knew was not looked at"),
    ({"accent": "Scottish"}, "was best on validation; whether it has forgotten what it knew was not looked at"),
    ({"accent": "American"}, "was best on validation and probe"), ({"accent": ["German", "American"]}, "was best on probe")])
def test_the_share_is_best_on_what_was_measured(probe, says, recipe, monkeypatch):
    monkeypatch.setattr(ft, "SHARES", (0., 1.))
    monkeypatch.setattr(ft, "decode_set", lambda run, clips, dialect: ["hello"]*len(clips))
    monkeypatch.setattr(ft, "check_sets", lambda sets, recipe: None)  # all of them may be the probe
    run = ft.start(recipe(interpolate="auto", probe=probe))
    ft.interpolate(run)
    assert says in run.notes[-1] and ("forgotten" in says or run.notes[-1].endswith(says)), run.notes


@pytest.mark.parametrize("half, other", [("encoder", "decoder"), ("decoder", "encoder")])
def test_a_frozen_half_stays(half, other, recipe):
    r = recipe(freeze=half, steps=2)
    before = WhisperForConditionalGeneration.from_pretrained(ROOT/"data/nano", dtype=torch.float32).state_dict()
    ft.finetune(r)
    after = weights(r)
    changed = {name.split(".")[1] for name in after if not torch.equal(after[name].float(), before[name].float())}
    assert changed == {other}
    learnt, whole = manifest(r)["parameters"]["trainable"], manifest(r)["parameters"]["all"]
    assert .3*whole < learnt < .7*whole


def test_a_frozen_encoder_is_asked_once(recipe, monkeypatch):
    "The same training, whether the encoder's outputs are kept or made anew."
    r, asked = recipe(freeze="encoder", steps=8, strategy="single", batch_windows=4), []
    ft.finetune(r)
    kept = weights(r)
    assert not (ft.resolve(r.out_dir)/"checkpoints/encoded").exists()  # gigabytes, in real life
    monkeypatch.setattr(ft, "encode_once", lambda *_: asked.append(1))
    ft.finetune(r)
    anew = weights(r)
    assert asked
    for name in anew: torch.testing.assert_close(kept[name].float(), anew[name].float(), rtol=0, atol=2e-4, msg=name)


def test_parts_learn_at_their_own_rate(recipe):
    r = recipe(group_rates={"encoder": 1e-6, "tokens": 1e-6}, steps=2, warmup_share=0)
    before = WhisperForConditionalGeneration.from_pretrained(ROOT/"data/nano", dtype=torch.float32).state_dict()
    ft.finetune(r)
    moved = {}
    for name, w in weights(r).items():
        part = "tokens" if "embed_tokens" in name else name.split(".")[1]
        moved[part] = max(moved.get(part, 0), (w.float() - before[name].float()).abs().max().item())
    assert moved["decoder"] > 100*moved["encoder"] and moved["decoder"] > 100*moved["tokens"], moved


def test_translation_is_trained_as_such(recipe):
    run = ft.start(recipe(task="translate"))
    token = run.processor.tokenizer.convert_tokens_to_ids("<|translate|>")
    assert all(token in row for row in run.windows[0]["decoder_input_ids"].tolist())
    ft.train(run)


def test_a_translation_is_scored_as_english_and_as_a_translation(recipe):
    run = ft.start(recipe(task="translate", language="hi"))
    assert ft.language_of(run) == "en"
    table = table_of(["the color, 7", "it isn't"], ["the colour, seven", "it is not"], ["hi", "hi"])
    found = ft.results(table, run.windows.filled, [dict(step=1, loss=1.)], "en", True)
    assert found["after"]["wer_norm"] == 0 and 0 < found["after"]["bleu"] < 100 and found["before"].keys() == found["after"].keys()


def table_of(said, heard, languages):
    return pd.DataFrame(dict(id=[str(i) for i in range(len(said))], set="test", speaker=None, accent="x", reference=said, before=None, after=heard,
                             language=languages))


def test_several_languages_are_each_scored_by_their_own_rules(recipe):
    run = ft.start(recipe(language=None, data="common_voice:data/accents", smoke=True))
    assert ft.language_of(run) == "en"
    own = ["hi" if i % 2 else "en" for i in range(len(run.sets["test"]))]
    run.sets["test"] = with_column(run.sets["test"], "language", own)
    assert ft.language_of(run) is None
    table = table_of(["Call Anna at 7.", "किताब मेज़ पर है"], ["call Anna at seven", "किताब मेज़ पर हो"], ["en", "hi"])
    found = ft.results(table, run.windows.filled, [dict(step=1, loss=1.)], None)
    assert found["after"]["wer_norm"] == 1/8 and found["by_group"]["accent"]["x"]["after"]["wer_norm"] == 1/8
    assert ft.wer_of(run, run.sets["test"], run.sets["test"]["text"][:]) == 0


def test_texts_in_lower_case(recipe):
    found = ft.start(recipe(text_style="plain")).sets["train"]["text"]
    assert all(t == t.lower() and "." not in t for t in found)


def test_other_clips_are_another_run(recipe):
    r = recipe(steps=2)
    ids = ft.start(r).sets["train"]["id"][:6]
    ft.write_manifest(ft.resolve(r.out_dir), finished="now")
    run = ft.start(r, ids)
    assert list(run.sets["train"]["id"]) == sorted(ids, key=list(ft.start(r, ids).sets["train"]["id"]).index)
    with pytest.raises(UserError, match="unfinished run of something else"): ft.start(r, ids[:4])
    with pytest.raises(UserError, match="such as 'nobody'"): ft.start(r, ["nobody"])


@pytest.mark.parametrize("adapter, quantize", [("adalora", None), ("dora", "4bit")])
def test_adapters_train_choose_and_merge(adapter, quantize, recipe):
    "Killed in the middle or not: the same weights, and nothing of peft in them. A new word learns beside the adapter."
    r = recipe(adapter=adapter, lora_rank=4, quantize=quantize, learning_rate=1e-2, keep="best_wer", validate_steps=3, new_words=[" roundabout"],
               gradient_checkpointing=True)
    ft.finetune(r)
    first, lines = weights(r), log(r)
    learnt, whole = manifest(r)["parameters"]["trainable"], manifest(r)["parameters"]["all"]
    assert learnt < .1*whole and "validation_wer" in lines[-1]
    model, processor = ft.load_model(f"{r.out_dir}/model")
    assert len(processor.tokenizer(" roundabout", add_special_tokens=False).input_ids) == 1
    assert not [n for n in first if "lora" in n or "base" in n] and not hasattr(model.config, "quantization_config")
    def die(lines):
        if lines[-1]["step"] == 5: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): ft.finetune(r, die)
    ft.finetune(r)
    assert log(r) == lines
    assert all(torch.equal(w, first[name]) for name, w in weights(r).items())


@pytest.mark.parametrize("values, message", [
    (dict(report_to=["wandb"]), "pip install wandb"), (dict(precision="fp16"), "needs a GPU"), (dict(window_s=10), "stages of `windows`"),
    (dict(gpus=2, deepspeed="zero1", device="cpu", hostfile="/no/such/hosts"), "write a line `name slots=8`"), (dict(device="cuda"), "not available here"), (dict(gpus=2), "and this machine has 0"), (dict(deepspeed="zero2"), "-y 'deepspeed: null'"),
    (dict(quantize="8bit"), "give an `adapter`"), (dict(hostfile="hosts"), "`hostfile` is for DeepSpeed"), (dict(adapter="lora", quantize="4bit", deepspeed="zero3"), "set `deepspeed` to zero2")])
@pytest.mark.skipif(torch.cuda.is_available(), reason="said where there is no GPU")
def test_what_cannot_work_is_said_before_anything_is_paid(values, message, recipe, tmp_path):
    with pytest.raises(UserError, match=re.escape(message)): ft.start(recipe(**values))
    assert not (tmp_path/"run").exists()
