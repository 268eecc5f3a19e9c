"New tokens, timestamps and BPE dropout: any text, any seed, another process, and files as the hub has them."
import json, multiprocessing, time

import pytest, torch
from conftest import ROOT
from hypothesis import given, settings, strategies as st
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperTokenizer

from whisper_tutorial.core import UserError
from whisper_tutorial.speech.text import (add_tokens, costly_words, count_tokens, decode_segments, decode_text, encode_label, load_tokenizer,
                                          lower_case, normalize, prompt_tokens, style_text, text_tokens, timestamp_token, whisper_normalize)

BIG, NANO = load_tokenizer(), load_tokenizer("data/nano")
WORDS = [" ng'ombe", " بزّاف", " हमने", "ที่นี่"]
LONGER = add_tokens(None, BIG, {"ary": "ar"}, ["ar-ma", "ary-casa"], WORDS)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
MIXED = st.lists(st.sampled_from([*WORDS, "ng'ombe", " हमनेसे", " ", "Hello", "…", "é"]) | TEXT, max_size=6)
MIXED = MIXED.map(lambda parts: "".join(parts).replace("<|", ""))  # a timestamp would not be text


@given(text=MIXED, dropout=st.floats(0, 1), seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_dropout_changes_the_cut_and_never_the_text(text, dropout, seed):
    for tokenizer in (NANO, LONGER):
        plain, cut = text_tokens(tokenizer, [text])[0], text_tokens(tokenizer, [text], dropout, seed)[0]
        assert tokenizer.decode(cut) == tokenizer.decode(plain)
        assert cut == text_tokens(tokenizer, [text], dropout, seed)[0]
        assert text_tokens(tokenizer, [text], 1e-300, seed)[0] == plain


def cut_in_worker(seed): return text_tokens(NANO, ["The train to Paris leaves at ten o'clock."], .3, [7, seed])


def test_workers_cut_alike_and_share_nothing():
    here, before = [cut_in_worker(i) for i in range(8)], NANO.backend_tokenizer.to_str()
    with multiprocessing.get_context("fork").Pool(2) as pool: assert pool.map(cut_in_worker, range(8)) == here
    assert NANO.backend_tokenizer.to_str() == before
    assert len({str(cut) for cut in here}) > 1


def test_a_line_without_spaces_is_cut_in_good_time():
    start = time.perf_counter()
    text_tokens(BIG, ["中文句子没有空格"*400], .1)  # 9,600 bytes; looking at all neighbours before each merge takes 10 s
    assert time.perf_counter() - start < 3


@given(st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 1500), MIXED), max_size=5))
@settings(max_examples=100, deadline=None)
def test_segments_come_back(drawn):
    segments = [(min(a, b)/50, max(a, b)/50, text) for a, b, text in drawn]
    for tokenizer in (NANO, LONGER):
        label, said = prompt_tokens(tokenizer, "en", timestamps=True), []
        for start, end, text in segments:
            ids = text_tokens(tokenizer, [text])[0]
            label += [timestamp_token(tokenizer, start), *ids, timestamp_token(tokenizer, end)]
            if decode_text(tokenizer, ids): said.append((start, end, decode_text(tokenizer, ids)))
        assert decode_segments(tokenizer, torch.tensor(label + [tokenizer.eos_token_id, -100])) == said


def logits(model, tokenizer, mel, language, **how):
    ids = torch.tensor([prompt_tokens(tokenizer, language, **how)])
    with torch.no_grad(): return model(input_features=mel, decoder_input_ids=ids).logits[0]


def test_a_model_keeps_what_it_knew_and_is_saved_whole(tmp_path):
    model = WhisperForConditionalGeneration.from_pretrained(ROOT/"data/nano", dtype=torch.float32).eval()
    mel = torch.randn(1, 80, 3000, generator=torch.manual_seed(0))
    before, old = logits(model, NANO, mel, "en"), NANO.get_vocab()
    words = costly_words(NANO, ["my grandfather and my television", "grandfather"], 2)
    assert words == [" grandfather", " television"]
    wide = add_tokens(model, NANO, {"sco": "en"}, ["en-in"], words)
    moved = [wide.get_vocab()[token] for token in sorted(old, key=old.get)]
    now = logits(model, wide, mel, "en")
    assert torch.equal(now[:, moved], before)
    assert torch.equal(logits(model, wide, mel, "sco")[:, moved], before)
    pieces = NANO.convert_tokens_to_ids(NANO.tokenize(" grandfather"))
    torch.testing.assert_close(now[:, wide.convert_tokens_to_ids(" grandfather")], before[:, pieces].mean(1), atol=1e-4, rtol=1e-4)
    assert model.proj_out.weight is model.get_input_embeddings().weight
    assert model.get_input_embeddings().padding_idx == wide.pad_token_id
    known = model.generation_config
    assert known.eos_token_id == known.pad_token_id == model.config.eos_token_id == wide.eos_token_id
    assert known.no_timestamps_token_id + 1 == timestamp_token(wide, 0) == len(wide) - 1501
    assert all(known.lang_to_id[t] == wide.convert_tokens_to_ids(t) for t in ("<|en|>", "<|su|>", "<|sco|>"))

    model.save_pretrained(tmp_path); wide.save_pretrained(tmp_path)
    again, tokenizer = WhisperForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32).eval(), load_tokenizer(tmp_path)
    assert tokenizer.get_vocab() == wide.get_vocab() == WhisperTokenizer.from_pretrained(tmp_path).get_vocab()
    label = encode_label(wide, "My grandfather", "en", dialect="en-in")
    assert encode_label(tokenizer, "My grandfather", "en", dialect="en-in") == label
    assert torch.equal(logits(again, tokenizer, mel, "en", dialect="en-in"), logits(model, wide, mel, "en", dialect="en-in"))
    with pytest.raises(UserError, match="already"): add_tokens(again, tokenizer, dialects=["en-in"])
    assert again.config.vocab_size == len(wide)  # a refusal changes nothing


def test_adding_twice_is_adding_at_once():
    at_once = add_tokens(None, NANO, {"sco": "en"}, ["en-in"], [" television", " grandfather"])
    first = add_tokens(None, NANO, {"sco": "en"}, words=[" television"])
    assert add_tokens(None, first, dialects=["en-in"], words=[" grandfather"]).get_vocab() == at_once.get_vocab()


def test_old_settings_and_a_table_with_spare_rows_move_too():
    end = BIG.eos_token_id
    config = WhisperConfig(
        vocab_size=len(BIG) + 7, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1, decoder_attention_heads=1,
        encoder_ffn_dim=8, decoder_ffn_dim=8, max_source_positions=4, max_target_positions=8, eos_token_id=end, pad_token_id=end,
        bos_token_id=end, decoder_start_token_id=end + 1, suppress_tokens=None, begin_suppress_tokens=None)
    model = WhisperForConditionalGeneration(config)
    known = model.generation_config
    known.suppress_tokens, known.begin_suppress_tokens, known.forced_decoder_ids = [1, 50359], [220, 50257], [[1, None], [2, 50359]]
    rows = model.get_input_embeddings().weight.detach().clone()
    add_tokens(model, BIG, {"ary": "ar"}, words=[" ng'ombe"])
    assert (known.suppress_tokens, known.begin_suppress_tokens) == ([1, 50361], [220, 50258])
    assert known.forced_decoder_ids == [[1, None], [2, 50361]]
    assert torch.equal(model.get_input_embeddings().weight[-1501:], rows[50364:51865])

    short = WhisperForConditionalGeneration(WhisperConfig(**config.to_dict() | {"vocab_size": 51_000}))
    with pytest.raises(UserError, match="saved with the model"): add_tokens(short, BIG, {"ary": "ar"})
    assert short.config.vocab_size == 51_000


def test_a_tokenizer_of_the_hub_without_timestamps_gets_them(tmp_path):
    "Early uploads end with <|notimestamps|>; the timestamps' rows are in the model nevertheless."
    BIG.save_pretrained(tmp_path)
    file = json.loads((tmp_path/"tokenizer.json").read_text())
    file["added_tokens"] = [t for t in file["added_tokens"] if t["id"] < 50364]
    (tmp_path/"tokenizer.json").write_text(json.dumps(file))
    early = load_tokenizer(tmp_path)
    assert len(early) == 50364
    said = [timestamp_token(early, 1), *text_tokens(early, ["Hello"])[0], timestamp_token(early, 2)]
    assert decode_segments(early, said) == decode_segments(BIG, said) == [(1., 2., "Hello")]
    assert add_tokens(None, early, {"ary": "ar"}).get_vocab() == add_tokens(None, BIG, {"ary": "ar"}).get_vocab()


def test_loading_from_the_hub_without_a_network_says_so():
    with pytest.raises(UserError, match="needs the network"): load_tokenizer("openai/no-such-whisper")


@pytest.mark.parametrize("what, contains", [
    (dict(language="Englsh"), "Did you mean `english`"), (dict(language="kab"), "related language"), (dict(language=None), "Give a code"),
    (dict(language="transcribe"), "knows no language"), (dict(language="ar", task="transcripe"), "Did you mean `transcribe`"),
    (dict(language="ar", dialect="ar-mx"), "Did you mean `ar-ma`"), (dict(language="hi", dialect="ar-ma"), "'ar'"),
    (dict(language="ar", dialect="ary-casa"), "'ary'"), (dict(language="kab", language_like="arabc"), "Did you mean `arabic`")])
def test_a_wrong_prompt_is_refused(what, contains):
    with pytest.raises(UserError, match=contains): prompt_tokens(LONGER, **what)


def test_prompts_with_dialects():
    def words(*args, **how): return LONGER.decode(prompt_tokens(LONGER, *args, **how))
    assert words("ar", dialect="AR_ma") == "<|startoftranscript|><|ar|><|ar-ma|><|transcribe|><|notimestamps|>"
    assert words("ary", "translate", True, "ary-casa") == "<|startoftranscript|><|ary|><|ary-casa|><|translate|>"
    assert words("ary", language_like="ar") == words("ary")  # its own token wins
    assert prompt_tokens(BIG, "ary", language_like="ar") == prompt_tokens(BIG, "ar")
    assert words("ar-MA") == words("ar")  # a locale is no dialect
    assert decode_text(LONGER, encode_label(LONGER, "لا بأس", "ar", dialect="ar-ma")) == "لا بأس"


@given(texts=st.lists(MIXED.filter(str.strip), min_size=1, max_size=5))
@settings(deadline=None)
def test_joined_texts_cost_the_sum_with_new_words_too(texts):
    assert count_tokens(LONGER, texts).sum() == count_tokens(LONGER, [" ".join(t.strip() for t in texts)])[0]


def test_a_shared_tokenizer_is_not_changed():
    before = dict(BIG.get_vocab())
    add_tokens(None, BIG, {"ary": "ar"}, ["ar-ma"], [" ng'ombe"])
    assert load_tokenizer().get_vocab() == before


def test_normalisers_differ_where_marks_are_letters():
    for language, word in {"hi": "हमने", "ary": "بزّاف", "sw": "ng'ombe", "th": "ที่นี่", "km": "ទឹក"}.items():
        assert normalize(f"{word}, {word}!", language) == f"{word} {word}"
        assert whisper_normalize(word, language) != word
    assert whisper_normalize("Don't!", "en") == normalize("Don't!", "en") == "do not"


@pytest.mark.parametrize("language, text, lower, plain", [
    ("hi", "हमने कहा।", "हमने कहा।", "हमने कहा"),  # no case; the vowel signs stay
    ("ary", "بزّاف، بزّاف؟", "بزّاف، بزّاف؟", "بزّاف بزّاف"),
    ("sw", "Ng’ombe wangu!", "ng’ombe wangu!", "ng'ombe wangu"),
    ("tr", "İSTANBUL’DA IRMAK.", "istanbul’da ırmak.", "istanbul'da ırmak"),
    ("az", "I\u0307ki: QIZ", "iki: qız", "iki qız"),  # İ as two characters
    ("de", "GROẞE Straße – İstanbul", "große straße – istanbul", "große straße istanbul"),
    ("ka", "ᲗᲑᲘᲚᲘᲡᲘ, თბილისი", "თბილისი, თბილისი", "თბილისი თბილისი"),
    ("th", "“ที่นี่” 👍🏽", "“ที่นี่” 👍🏽", "ที่นี่"),
    ("en", "It's 7:30 (well-known) — 50% of $3.5…", "it's 7:30 (well-known) — 50% of $3.5…", "it's 7:30 well-known 50% of $3.5")])
def test_styles(language, text, lower, plain):
    assert [style_text(text, style, language) for style in ("as_written", "lower", "plain")] == [text, lower, plain]


@given(text=MIXED | TEXT, language=st.sampled_from(["tr", "fr", "hi", None]))
@settings(max_examples=300, deadline=None)
def test_a_style_is_settled_and_keeps_the_letters(text, language):
    lower, plain = lower_case(text, language), style_text(text, "plain", language)
    assert style_text(plain, "plain", language) == plain == " ".join(plain.split())
    def letters(s): return [c for c in s if c.isalnum()]
    assert letters(plain) == letters(lower)


def test_a_style_changes_no_normalised_score():
    for text in ("C’est l’été — n’est-ce pas ?", "«Ng'ombe» wangu...", "हमने कहा: हाँ!", "col·lecció, 7:30"):
        for style in ("lower", "plain"): assert normalize(style_text(text, style, "fr"), "fr") == normalize(text, "fr")


def test_a_wrong_style_is_refused():
    with pytest.raises(UserError, match="one of as_written, lower, plain. Did you mean `plain`"): style_text("Hi!", "plane")
