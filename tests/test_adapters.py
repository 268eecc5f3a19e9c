"Adapters under the real trainer: what is stopped and resumed ends with the same bits; new tokens survive merging."
import shutil
import pytest, torch
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback, WhisperForConditionalGeneration, WhisperProcessor, set_seed

from conftest import ROOT
from whisper_tutorial.speech.text import add_tokens
from whisper_tutorial.training.adapters import (after_step, load_adapter, load_quantized, merge_adapter, regularisation, save_adapter, trainable,
                                                with_adapter)
from whisper_tutorial.training.recipe import load_recipe

NANO, STEPS = str(ROOT/"data/nano"), 8


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads(); torch.set_num_threads(1); torch.use_deterministic_algorithms(True)
    yield
    torch.set_num_threads(before); torch.use_deterministic_algorithms(False)


def short(model): # windows of one second, so that a step takes a moment
    model.model.encoder.embed_positions = torch.nn.Embedding.from_pretrained(model.model.encoder.embed_positions.weight[:50].clone(), freeze=True)
    model.config.max_source_positions = 50
    return model


def base(quantize):
    return load_quantized(NANO, quantize, "cpu") if quantize else WhisperForConditionalGeneration.from_pretrained(NANO, dtype=torch.float32)


class Ranks(TrainerCallback):
    def __init__(self, model, stop): self.model, self.stop = model, stop
    def on_optimizer_step(self, args, state, control, **kw): after_step(self.model, state.global_step)
    def on_save(self, args, state, control, **kw): control.should_training_stop |= state.global_step == self.stop


class Trainer(Seq2SeqTrainer):
    def compute_loss(self, model, inputs, **kw): return model(**inputs).loss + regularisation(model)


def run(folder, adapter, quantize, stop=None, resume=None, checkpointing=False):
    "Train on made-up windows; the adapter's numbers, by name."
    set_seed(0)
    model = with_adapter(short(base(quantize)), load_recipe(steps=STEPS, adapter=adapter, quantize=quantize), STEPS, new_tokens=[5, 6])
    model.base_model.model.model.encoder.layerdrop = .2 if adapter == "adalora" else 0.  # a layer that is left out has no gradient
    draw = torch.Generator().manual_seed(1)
    clips = [{"input_features": torch.randn(80, 100, generator=draw), "labels": torch.randint(0, 400, (6,), generator=draw)} for _ in range(2*STEPS)]
    args = Seq2SeqTrainingArguments(output_dir=str(folder), max_steps=STEPS, per_device_train_batch_size=2, learning_rate=1e-2, save_steps=3, report_to=[],
                                    use_cpu=True, disable_tqdm=True, remove_unused_columns=False, label_names=["labels"], gradient_checkpointing=checkpointing)
    Trainer(model=model.train(), args=args, train_dataset=clips, callbacks=[Ranks(model, stop)]).train(resume_from_checkpoint=resume)
    return {n: p.detach().clone() for n, p in model.state_dict().items() if "lora_" in n or "trainable_tokens_delta" in n}


@pytest.mark.parametrize("adapter, quantize", [("lora", None), ("lora", "8bit"), ("lora", "4bit"), ("dora", "8bit"), ("adalora", None), ("adalora", "4bit")])
def test_stopped_and_resumed(tmp_path, adapter, quantize):
    whole = run(tmp_path/"whole", adapter, quantize)
    run(tmp_path/"cut", adapter, quantize, stop=3)
    for at, stop in ((3, 6), (6, None)):  # AdaLoRA's ranks are shared out until step 4
        found = run(tmp_path/"cut", adapter, quantize, stop, resume=str(tmp_path/f"cut/checkpoint-{at}"))
    assert whole.keys() == found.keys() and len(whole) > 36
    assert not [n for n in whole if not torch.equal(whole[n], found[n])]
    assert (tmp_path/"cut/checkpoint-6/adapter_model.safetensors").exists() and not (tmp_path/"cut/checkpoint-6/model.safetensors").exists()


def test_gradient_checkpointing_is_the_same_step(tmp_path):
    plain, saving = (run(tmp_path/str(c), "lora", "4bit", checkpointing=c) for c in (False, True))
    assert all(torch.allclose(plain[n], saving[n], atol=1e-5) for n in plain)


@pytest.mark.parametrize("quantize", [None, "4bit"])
def test_new_tokens(tmp_path, quantize):
    "Rows that a longer tokenizer brought learn, are saved with the adapter, and are merged, in the table and in the scores."
    tokenizer = WhisperProcessor.from_pretrained(NANO).tokenizer
    def grown():
        model = base(quantize)
        return model, add_tokens(model, tokenizer, dialects=["en-de"], words=[" zorbl"])
    model, longer = grown()
    new = [longer.convert_tokens_to_ids("<|en-de|>"), *longer(" zorbl", add_special_tokens=False).input_ids]
    model = with_adapter(short(model), load_recipe(steps=2, adapter="lora", quantize=quantize), 2, new)
    mel, ids = torch.randn(1, 80, 100), torch.tensor([new*3])
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    for _ in range(2):
        model(input_features=mel, labels=ids).loss.backward(); optimizer.step(); optimizer.zero_grad()
    def logits(m):
        with torch.no_grad(): return m.eval()(input_features=mel, decoder_input_ids=ids).logits
    learnt = logits(model)
    save_adapter(model, tmp_path/"adapter")
    again = load_adapter(short(grown()[0]), tmp_path/"adapter")
    assert trainable(again) == trainable(model) and torch.equal(logits(again), learnt)
    merged = merge_adapter(again)
    assert (logits(merged) - learnt).abs().max() < 1e-4 and merged.proj_out.weight is merged.model.decoder.embed_tokens.weight
    merged.save_pretrained(tmp_path/"model")
    loaded, info = WhisperForConditionalGeneration.from_pretrained(tmp_path/"model", output_loading_info=True)
    assert not any(info.values()) and torch.equal(logits(loaded), logits(merged))
    if quantize:  # into the original weights, which know no new tokens
        original = merge_adapter(model, NANO)
        assert torch.equal(original.model.decoder.embed_tokens.weight, merged.model.decoder.embed_tokens.weight)
        assert torch.equal(original.model.decoder.layers[0].fc1.weight, base(None).model.decoder.layers[0].fc1.weight)
