"What the chapters of `speech` cannot show on examples: any text, any damaged file."
import io

import numpy as np, pytest, soundfile
from hypothesis import given, settings, strategies as st

from whisper_tutorial.core import UserError
from whisper_tutorial.speech.audio import SR, audio_duration, load_audio
from whisper_tutorial.speech.text import count_tokens, decode_text, encode_label, load_tokenizer, new_tokenizer, normalize

TEXT = st.text(st.characters(exclude_categories=["Cs"]))  # all of Unicode; surrogates are no characters
SMALL = new_tokenizer(["The train to Paris leaves at ten o'clock.", "Where is the train to Lisbon?"]*9, 300)
TOKENIZERS = pytest.mark.parametrize("tokenizer", [SMALL, load_tokenizer()], ids=["small", "multilingual"])


@TOKENIZERS
@given(text=TEXT)
def test_no_text_is_changed_by_its_label(tokenizer, text):
    label = encode_label(tokenizer, text, "en")
    assert label.count(tokenizer.convert_tokens_to_ids("<|startoftranscript|>")) == 1
    assert label.count(tokenizer.eos_token_id) == 1
    assert decode_text(tokenizer, label) == text.strip()


@TOKENIZERS
@given(texts=st.lists(TEXT.filter(str.strip), min_size=1, max_size=5))
def test_joined_texts_cost_the_sum(tokenizer, texts):
    counts = count_tokens(tokenizer, texts)
    assert counts.sum() == count_tokens(tokenizer, [" ".join(t.strip() for t in texts)])[0]


@given(text=TEXT, language=st.sampled_from(["hi", "ary", "sw", "tr", "fr", "no such language"]))
def test_normalizing_twice_changes_nothing(text, language):
    once = normalize(text, language)
    assert normalize(once, language) == once
    assert once == " ".join(once.split())


def packed(**how):
    sound = np.sin(np.arange(2*44_100)*.05).astype(np.float32)*.5
    file = io.BytesIO()
    soundfile.write(file, np.stack([sound, sound/2], 1), 48_000 if how.get("subtype") == "OPUS" else 44_100, **how)
    return file.getvalue()


FILES = {"wav": packed(format="WAV"), "8-bit": packed(format="WAV", subtype="PCM_U8"), "flac": packed(format="FLAC"),
         "mp3": packed(format="MP3"), "vorbis": packed(format="OGG"), "opus": packed(format="OGG", subtype="OPUS")}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # soundfile's callbacks report odd seeks
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_damaged_file_gives_sound_or_a_user_error(kind, seed):
    rng, data = np.random.default_rng(seed), bytearray(FILES[kind])
    if rng.random() < .3: data = data[:rng.integers(len(data))]
    where = rng.integers(len(data) if rng.random() < .5 else min(len(data), 64), size=8) if data else []
    for i in where: data[i] = rng.integers(256)
    for read in (load_audio, audio_duration):
        try: found = read(bytes(data))
        except UserError: continue
        assert np.isfinite(found).all()
        if read is load_audio: assert found.dtype == np.float32 and found.ndim == 1 and 0 < len(found)


def test_the_multilingual_tokenizer_is_the_published_one():
    import hashlib
    tokenizer = load_tokenizer()
    pieces = "\n".join(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
    assert hashlib.sha256(pieces.encode()).hexdigest() == "85cf11113aa47141611b6294bf796cfce9d7e0834c3c56ed74d7efced2ab12a7"
