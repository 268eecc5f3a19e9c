"Our Whisper is Whisper: the published sizes, the original's own decoding, and what it refuses."
import gc
from dataclasses import asdict

import pytest, torch, whisper
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration
from whisper.decoding import DecodingOptions
from whisper_tutorial import UserError
from whisper_tutorial.core import asset
from whisper_tutorial.evaluation.transcribe import greedy_tokens
from whisper_tutorial.speech.text import load_tokenizer
from whisper_tutorial.training.model import (Dims, MultiHeadAttention, Whisper, beam, cross_attention, dims_of, fit, greedy,
                                             hf_settings, load_weights, our_name, processor_for, save_model, sinusoids,
                                             timestamp_rules)

SIZES = {  # width, heads, layers of the encoder and the decoder, mels, tokens; parameters by transformers, by openai-whisper
    "tiny": (384, 6, 4, 4, 80, 51_865, 37_760_640, 37_184_640),
    "base": (512, 8, 6, 6, 80, 51_865, 72_593_920, 71_825_920),
    "small": (768, 12, 12, 12, 80, 51_865, 241_734_912, 240_582_912),
    "medium": (1024, 16, 24, 24, 80, 51_865, 763_857_920, 762_321_920),
    "large-v2": (1280, 20, 32, 32, 80, 51_865, 1_543_304_960, 1_541_384_960),
    "large-v3": (1280, 20, 32, 32, 128, 51_866, 1_543_490_560, 1_541_570_560),
    "large-v3-turbo": (1280, 20, 32, 4, 128, 51_866, 808_878_080, 806_958_080)}


def hf_config(width, heads, encoder, decoder, mels, tokens, *_):
    return WhisperConfig(
        vocab_size=tokens, num_mel_bins=mels, d_model=width, encoder_layers=encoder, decoder_layers=decoder,
        encoder_attention_heads=heads, decoder_attention_heads=heads, encoder_ffn_dim=4*width, decoder_ffn_dim=4*width,
        suppress_tokens=None, begin_suppress_tokens=None)


def small_dims(**changed): return Dims(**asdict(Dims(80, 1500, 64, 4, 2, 51_865, 448, 64, 4, 2)) | changed)


def loud(model, std=.1):
    "Weights far from zero, so that nothing agrees by being small."
    with torch.no_grad():
        for p in model.parameters(): p.normal_(std=std)
    return model.eval()


@pytest.mark.parametrize("name", SIZES)
def test_every_published_size_has_our_names_and_shapes(name):
    *_, by_hf, by_openai = SIZES[name]
    with torch.device("meta"):
        theirs = WhisperForConditionalGeneration(hf_config(*SIZES[name]))
        ours = Whisper(dims_of(theirs.config))
    assert sum(p.numel() for p in theirs.parameters()) == by_hf
    assert sum(p.numel() for p in ours.parameters()) == by_openai
    shapes = {our_name(n): w.shape for n, w in theirs.state_dict().items()}
    assert shapes == {n: w.shape for n, w in ours.state_dict().items()}


@pytest.mark.parametrize("name", SIZES)
def test_weights_of_a_published_size_give_the_same_numbers(name, everything):
    if name != "tiny" and not everything: pytest.skip("make test-all: up to 20 GB of memory")
    torch.manual_seed(0)
    theirs = WhisperForConditionalGeneration(hf_config(*SIZES[name])).eval()
    with torch.no_grad():
        for p in theirs.parameters(): p.add_(torch.randn_like(p), alpha=.02)  # fresh biases are 0, and fresh norms do nothing
    ours = Whisper.from_hf(theirs)
    mel, tokens = torch.randn(1, SIZES[name][4], 3000), torch.randint(50_000, (1, 12))
    with torch.no_grad(): wanted, found = theirs(input_features=mel, decoder_input_ids=tokens).logits, ours(mel, tokens)
    assert (wanted - found).abs().max() < 1e-4 < wanted.abs().max()
    ids = [theirs.config.decoder_start_token_id]
    end = theirs.config.eos_token_id
    written = greedy(ours, mel, torch.tensor([ids]), end, 12)
    assert torch.equal(greedy_tokens(theirs, mel, torch.tensor([ids]), end, 12), written)
    with torch.no_grad(): assert torch.equal(ours(mel, written)[:, :-1].argmax(-1), written[:, 1:])  # as without a cache
    sums = {n: (w.double().sum().item(), w.flatten()[-1].item()) for n, w in theirs.state_dict().items()}
    del theirs; gc.collect()
    back = ours.to_hf().state_dict()
    assert {n: (w.double().sum().item(), w.flatten()[-1].item()) for n, w in back.items()} == sums


@pytest.fixture(scope="module")
def pair():
    "The original and ours with the same random weights, and Whisper's vocabulary."
    torch.manual_seed(0)
    theirs = loud(whisper.model.Whisper(whisper.model.ModelDimensions(**asdict(small_dims()))), .15)
    ours = Whisper(small_dims()).eval(); load_weights(ours, theirs.state_dict())
    return theirs, ours


def test_the_original_computes_the_same(pair):
    theirs, ours = pair
    mel, tokens = torch.randn(2, 80, 3000), torch.randint(50_000, (2, 30))
    with torch.no_grad(): torch.testing.assert_close(ours(mel, tokens), theirs(mel, tokens), atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("times", [False, True])
@pytest.mark.parametrize("size", [None, 1, 5])
def test_the_original_writes_the_same(pair, seed, times, size):
    "Greedily and with beams, with the rules for times and without."
    theirs, ours = pair
    mel = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(seed))
    ids = load_tokenizer().convert_tokens_to_ids
    prompt = torch.tensor([ids(["<|startoftranscript|>", "<|en|>", "<|transcribe|>"] + ["<|notimestamps|>"]*(not times))])
    end, begin = ids("<|endoftext|>"), prompt.shape[1]
    unsaid = [i for i in range(end + 1, ids("<|0.00|>")) if i != ids("<|notimestamps|>")]  # as the original suppresses some
    def never(logits, tokens): return logits.index_fill(1, torch.tensor(unsaid), -torch.inf)
    rules = [timestamp_rules(begin, end, ids("<|notimestamps|>"), ids("<|0.00|>"))] if times else []
    options = DecodingOptions(language="en", without_timestamps=not times, beam_size=size, sample_len=20, fp16=False,
                              suppress_tokens=unsaid, suppress_blank=False)
    wanted = whisper.decode(theirs, mel[0], options).tokens
    if size: found = beam(ours, mel, prompt, end, size, 20, [never, *rules])[begin:]
    else: found = greedy(ours, mel, prompt, end, 20, [never, *rules])[0, begin:]
    found = found.tolist()
    assert (found[:found.index(end)] if end in found else found) == wanted


def test_a_beam_finds_what_greedy_misses():
    "Over some random models, the beam's text is never less probable on average, and sometimes more."
    better = 0
    for seed in range(6):
        torch.manual_seed(seed)
        model = loud(Whisper(Dims(80, 50, 32, 2, 1, 40, 32, 32, 2, 1)), .5)
        mel, prompt = torch.randn(1, 80, 100), torch.tensor([[1, 2]])
        def mean(ids):
            with torch.no_grad(): shares = model(mel, ids[None, :-1])[0].log_softmax(-1)
            return shares.gather(1, ids[1:, None])[1:].mean().item()
        first, best = greedy(model, mel, prompt, -1, 10)[0], beam(model, mel, prompt, -1, 5, 10)
        assert len(best) == len(first) == 12
        assert mean(best) >= mean(first) - 1e-5
        better += mean(best) > mean(first) + 1e-5
    assert better


def test_a_beam_may_end_at_once_or_find_no_end():
    model = loud(Whisper(Dims(80, 50, 32, 2, 1, 40, 16, 32, 2, 1)), .5)
    mel, prompt = torch.randn(1, 80, 100), torch.tensor([[1, 2]])
    only = lambda token: lambda logits, tokens: torch.full_like(logits, -torch.inf).index_fill(1, torch.tensor([token]), 0.)
    assert beam(model, mel, prompt, 7, rules=[only(7)]).tolist() == [1, 2]
    assert beam(model, mel, prompt, 7, rules=[only(9)]).tolist() == [1, 2] + [9]*14  # as long as the decoder has positions


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_half_precision_is_loaded_in_float32(precision):
    theirs = WhisperForConditionalGeneration.from_pretrained(asset("nano"), dtype=precision)
    ours = Whisper.from_hf(theirs)
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    for n, w in theirs.state_dict().items(): assert torch.equal(w.float(), ours.state_dict()[our_name(n)])


def test_settings_and_dropouts_travel():
    config = hf_config(32, 2, 1, 2, 80, 51_865); config.dropout, config.attention_dropout = .1, .2
    theirs = WhisperForConditionalGeneration(config)
    theirs.generation_config = GenerationConfig(max_length=77)
    ours = Whisper.from_hf(theirs)
    assert ours.decoder.blocks[1].drop.p == .1 and ours.encoder.blocks[0].attn.dropout == .2
    config.dropout = .3  # what came from it stays as it was
    back = ours.to_hf()
    assert (back.config.dropout, back.config.attention_dropout, back.generation_config.max_length) == (.1, .2, 77)
    ours.train()
    x = torch.randn(1, 80, 3000), torch.zeros(1, 4, dtype=int)
    assert not torch.equal(ours(*x), ours(*x))
    assert torch.equal(ours.eval()(*x), ours(*x))


def test_hf_settings_are_what_the_embedded_model_has():
    "A model born here says of itself what a published one says."
    theirs = WhisperForConditionalGeneration.from_pretrained(asset("nano"))
    config, generation = hf_settings(dims_of(theirs.config), load_tokenizer(asset("nano")))
    for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id", "bos_token_id", "vocab_size"):
        assert getattr(config, name) == getattr(theirs.config, name)
    for name in ("lang_to_id", "task_to_id", "no_timestamps_token_id", "prev_sot_token_id", "is_multilingual"):
        assert getattr(generation, name) == getattr(theirs.generation_config, name)


@pytest.mark.parametrize("shape", [(80, 3000), (1, 40, 3000), (1, 128, 3000), (1, 80, 2999), (1, 80, 3002), (1, 80, 1000), (1, 80, 0)])
def test_a_picture_that_is_none(shape):
    with pytest.raises(UserError) as e: Whisper(small_dims()).eval()(torch.zeros(shape), torch.zeros(1, 1, dtype=int))
    assert str(shape) in str(e.value) and "(batch, 80, 3000)" in str(e.value) and "log_mel(pad_to(wav, 480000)" in str(e.value)


@pytest.mark.parametrize("tokens, said", [
    (torch.zeros(1, 449, dtype=int), "449 tokens were given; this decoder has 448"),
    (torch.zeros(5, dtype=int), "tokens of shape (5,)"),
    (torch.zeros(3, 5, dtype=int), "tokens of shape (3, 5) and type torch.int64 were given for 1 sounds"),
    (torch.zeros(1, 5), "float32"),
    (torch.full((1, 3), 51_865), "token 51865"),
    (torch.full((1, 3), -100), "not labels")])
def test_tokens_that_are_none(tokens, said):
    with pytest.raises(UserError) as e: Whisper(small_dims()).eval()(torch.zeros(1, 80, 3000), tokens)
    assert said in str(e.value)


@pytest.mark.parametrize("make, said", [
    (lambda: MultiHeadAttention(30, 4), "width of 30 cannot be cut into 4 heads"),
    (lambda: MultiHeadAttention(32, 0), "0 heads"),
    (lambda: sinusoids(10, 33), "width of 33 has no sinusoids"),
    (lambda: sinusoids(10, 2), "width of 2 has no sinusoids"),
    (lambda: Whisper(small_dims(n_text_state=32)), "encoder has width 64, the decoder 32"),
    (lambda: Whisper(small_dims(n_audio_layer=0)), "`n_audio_layer` is 0"),
    (lambda: Whisper.from_hf(WhisperForConditionalGeneration(WhisperConfig(
        vocab_size=100, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=64, decoder_ffn_dim=128, pad_token_id=1, eos_token_id=1, bos_token_id=1, decoder_start_token_id=1))), "`encoder_ffn_dim` 64"),
    (lambda: load_weights(Whisper(small_dims()), Whisper(small_dims(n_audio_state=32, n_text_state=32)).state_dict()), "has (32, 32), expected (64, 64)"),
    (lambda: load_weights(Whisper(small_dims()), Whisper(small_dims(n_text_layer=1)).state_dict()), "has nothing, expected (")])
def test_sizes_that_do_not_fit(make, said):
    with pytest.raises(UserError) as e: make()
    assert said in str(e.value)


def test_pieces_of_whispers_own():
    from whisper_tutorial.speech.text import new_tokenizer
    with pytest.raises(UserError, match="50,257"): new_tokenizer(None, 60_000)
    assert len(new_tokenizer(None, 48_654)) == 50_262


def test_a_small_decoder_sets_long_labels_aside(tmp_path):
    from whisper_tutorial.training.finetune import start
    from whisper_tutorial.training.recipe import load_recipe
    run = start(load_recipe(model="new", n_text_ctx=24, n_state=16, n_head=2, n_layer=1, steps=1, language="en", out_dir=str(tmp_path/"run")))
    assert run.model.config.max_target_positions == 24 and len(run.quarantined)
    assert sum(map(len, run.sets.values())) + len(run.quarantined) == 820
    assert all(r.startswith("over the token budget") and r.endswith("at most 24") for r in run.quarantined["reason"])
    labels = [run.windows[i]["labels"] for i in range(len(run.windows))]
    assert max(l.shape[1] for l in labels) <= 24


@pytest.mark.parametrize("key, value, said", [
    ("n_text_ctx", 4, "n_text_ctx"), ("pieces", "gpt2", "learnt"), ("n_pieces", 60_000, "n_pieces"), ("dropout", 1., "dropout"), ("n_audio_ctx", 225, "n_audio_ctx")])
def test_keys_of_the_architecture(key, value, said):
    from whisper_tutorial.training.recipe import load_recipe
    with pytest.raises(UserError, match=said): load_recipe("gigaspeech-scratch", **{key: value})


DIMS = Dims(80, 50, 32, 2, 1, 40, 16, 32, 2, 1)


@pytest.mark.parametrize("mel, prompt, said", [
    (1, torch.zeros(1, 16, dtype=int), "shape (1, 16)"), (1, torch.zeros(1, 20, dtype=int), "fewer than the decoder's 16"),
    (1, torch.zeros(1, 0, dtype=int), "at least one"), (1, torch.zeros(4, dtype=int), "shape (4,)"), (2, torch.zeros(1, 4, dtype=int), "for 2 sounds")])
def test_a_prompt_that_is_none(mel, prompt, said):
    with pytest.raises(UserError) as e: greedy(Whisper(DIMS).eval(), torch.zeros(mel, 80, 100), prompt, 7)
    assert said in str(e.value)


def test_one_sound_at_a_time_and_not_in_training():
    model, mel, prompt = Whisper(DIMS).eval(), torch.zeros(2, 80, 100), torch.zeros(2, 4, dtype=int)
    for call in (lambda: beam(model, mel, prompt, 7, size=2), lambda: cross_attention(model, mel, prompt)):
        with pytest.raises(UserError, match="one sound at a time"): call()
    with pytest.raises(UserError, match="call `model.eval"): greedy(model.train(), mel, prompt, 7)


def test_where_it_looks_is_where_transformers_looks():
    theirs = WhisperForConditionalGeneration.from_pretrained(asset("nano"), dtype=torch.float32, attn_implementation="eager")
    mel, tokens = torch.randn(1, 80, 3000), torch.randint(400, (1, 9))
    with torch.no_grad(): wanted = theirs(input_features=mel, decoder_input_ids=tokens, output_attentions=True).cross_attentions
    torch.testing.assert_close(cross_attention(Whisper.from_hf(theirs), mel, tokens), torch.stack(wanted)[:, 0], atol=1e-5, rtol=0)


def test_a_checkpoint_that_is_no_whisper_of_openais_kind():
    config = hf_config(32, 2, 1, 1, 80, 51_865); config.tie_word_embeddings = False
    with pytest.raises(UserError, match="tie_word_embeddings"): dims_of(config)


def test_to_hf_checks_the_tokenizer():
    theirs = WhisperForConditionalGeneration.from_pretrained(asset("nano"))
    ours = Whisper.from_hf(theirs)
    with pytest.raises(UserError, match="51,865"): ours.to_hf(load_tokenizer())
    assert ours.to_hf(load_tokenizer(asset("nano"))).config.vocab_size == 2008


def test_later_chapters_take_what_is_trained_here(few, tmp_path):
    "Fine-tuning loads it, trains it, evaluates it."
    from whisper_tutorial.core import read_json
    from whisper_tutorial.training.finetune import finetune
    from whisper_tutorial.training.recipe import load_recipe
    model, windows = few()
    fit(model, windows)
    save_model(model.to_hf(windows.tokenizer), processor_for(model.dims, windows.tokenizer), tmp_path/"model")
    found = finetune(load_recipe(model=str(tmp_path/"model"), steps=2, smoke=True, language="en", out_dir=str(tmp_path/"run")))
    assert found["before"]["wer_norm"] is not None and found["after"]["n_clips"] == 4
    assert read_json(tmp_path/"run/manifest.json")["windows"][-1]["seconds"] == 5  # the window of this model


@pytest.fixture
def few():
    "Batches of four clips, and a model that can be trained on them."
    from whisper_tutorial.data.batches import TrainingWindows
    from whisper_tutorial.data.concatenation import Stage
    from whisper_tutorial.data.corpus import load_corpus, select
    from whisper_tutorial.speech.text import new_tokenizer
    clips = select(load_corpus("common_voice:data/accents"), {"split": "train"}).select(range(4))
    tokenizer = new_tokenizer(clips["text"], 300)
    def make(steps=4, width=32):
        torch.manual_seed(0)
        dims = Dims(80, 250, width, 2, 1, len(tokenizer), 64, width, 2, 1)
        return Whisper(dims, .1, .1), TrainingWindows(clips, tokenizer, [Stage(1., 5., 4)], steps, strategy="single", max_tokens=64)
    return make


def test_a_training_goes_on_where_it_was_cut_off(few, tmp_path):
    model, windows = few()
    logs = [fit(model, windows, validate_every=1)]
    for step in range(1, 4):
        def cut(log):
            if log[-1]["step"] == step: raise KeyboardInterrupt
        other, windows = few()
        with pytest.raises(KeyboardInterrupt): fit(other, windows, validate_every=1, folder=tmp_path/f"{step}", show=cut)
        again, windows = few()
        logs.append(fit(again, windows, validate_every=1, folder=tmp_path/f"{step}"))
        for a, b in zip(model.parameters(), again.parameters()): assert torch.equal(a, b)
    without_clock = [[{k: v for k, v in line.items() if k != "seconds"} for line in log] for log in logs]
    assert all(log == without_clock[0] for log in without_clock)
    finished, windows = few()
    assert len(fit(finished, windows, validate_every=1, folder=tmp_path/"3")) == 4  # nothing is left to do


def test_parts_of_steps_are_refused(few):
    model, windows = few()
    windows.micro_batches = 2
    with pytest.raises(UserError, match="cut into 2 parts"): fit(model, windows)


@pytest.mark.parametrize("changed, said", [
    (dict(steps=5), "`batches`"), (dict(width=16), "`dims`"), (dict(learning_rate=1e-3), "`learning_rate` is 0.0002, now 0.001")])
def test_another_training_does_not_go_on(few, tmp_path, changed, said):
    model, windows = few()
    fit(model, windows, folder=tmp_path)
    before = (tmp_path/"training.pt").read_bytes()
    model, windows = few(**{k: v for k, v in changed.items() if k != "learning_rate"})
    with pytest.raises(UserError) as e: fit(model, windows, folder=tmp_path, **{k: v for k, v in changed.items() if k == "learning_rate"})
    assert said in str(e.value) and "remove it" in str(e.value)
    assert (tmp_path/"training.pt").read_bytes() == before


def test_a_damaged_checkpoint_and_a_loss_that_is_no_number(few, tmp_path):
    (tmp_path/"training.pt").write_bytes(b"PK\x03\x04 half")
    model, windows = few()
    with pytest.raises(UserError, match="cannot be read .* remove it"): fit(model, windows, folder=tmp_path)
    with torch.no_grad(): model.decoder.ln.weight.fill_(torch.nan)
    with pytest.raises(UserError, match="`loss` is nan at step 1; lower `learning_rate`"): fit(model, windows)
