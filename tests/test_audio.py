"What the chapter on sound cannot show on examples: any length, any batch, any bad clip, and how fast it is."
import io, itertools, pickle, time

import numpy as np, pytest, soundfile, torch
from hypothesis import given, settings, strategies as st

from whisper_tutorial.core import UserError
from whisper_tutorial.speech import audio
from whisper_tutorial.speech.audio import HOP, SR, BadAudio, load_audio, log_mel, pad_to

NOISE = np.random.default_rng(0).normal(0, .1, 30*SR).astype(np.float32)
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@given(n_samples=st.integers(201, 20_000), n_mels=st.sampled_from([80, 128]), volume=st.floats(0, 1), start=st.integers(0, SR))
@settings(max_examples=60, deadline=None)
def test_the_picture_is_whispers_for_any_length(n_samples, n_mels, volume, start):
    import whisper.audio
    wav = np.float32(volume)*NOISE[start:start + n_samples]
    mel = log_mel(wav, n_mels)
    assert mel.dtype == np.float32 and mel.shape == (n_mels, n_samples//HOP)
    np.testing.assert_allclose(mel, whisper.audio.log_mel_spectrogram(wav, n_mels).numpy(), atol=1e-5)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_a_batch_is_the_feature_extractors(n_mels):
    from transformers import WhisperFeatureExtractor
    wavs = [NOISE, .01*NOISE[:7*SR + 3], np.zeros(SR, np.float32), NOISE[:500]]
    theirs = WhisperFeatureExtractor(feature_size=n_mels)(wavs, sampling_rate=SR, return_tensors="np").input_features
    windows = np.stack([pad_to(w, 30*SR) for w in wavs])
    np.testing.assert_allclose(log_mel(windows, n_mels), theirs, atol=1e-5)
    at_once = audio._log_mel(torch.from_numpy(windows), n_mels).numpy()  # as on a GPU
    np.testing.assert_allclose(at_once, theirs, atol=1e-5)


@CUDA
def test_a_gpu_computes_what_lies_there():
    mel = log_mel(torch.from_numpy(np.stack([NOISE, .01*NOISE])).cuda())
    assert mel.is_cuda and np.allclose(mel.cpu().numpy(), log_mel(np.stack([NOISE, .01*NOISE])), atol=1e-5)


@pytest.mark.parametrize("wav", [NOISE[::-1], NOISE.astype(np.float64), NOISE.astype(np.float16), NOISE[:1000].tolist(),
                                 torch.from_numpy(NOISE).requires_grad_(), np.lib.stride_tricks.as_strided(NOISE, (SR,), (8,))])
def test_any_array_is_read_and_not_changed(wav):
    before = wav.detach().numpy().copy() if torch.is_tensor(wav) else np.array(wav)
    if isinstance(wav, np.ndarray): wav.flags.writeable = False
    mel = log_mel(wav) if not isinstance(wav, list) else log_mel(np.float32(wav))
    assert isinstance(mel, np.ndarray) and np.isfinite(mel).all()
    assert np.array_equal(before, wav.detach().numpy() if torch.is_tensor(wav) else wav)


def test_faster_than_the_feature_extractor():
    "The benchmark notebook shows the figure (1.8 and more); here only that it is not lost on a busy machine."
    from transformers import WhisperFeatureExtractor
    extractor, threads = WhisperFeatureExtractor(), torch.get_num_threads()
    torch.set_num_threads(1)
    def seconds(f): start = time.perf_counter(); f(); return time.perf_counter() - start
    pairs = [(seconds(lambda: log_mel(NOISE)), seconds(lambda: extractor(NOISE, sampling_rate=SR))) for _ in range(30)]
    torch.set_num_threads(threads)
    assert np.median([theirs/ours for ours, theirs in pairs]) > 1.5, pairs


def packed(samples, rate=SR, **how):
    file = io.BytesIO()
    soundfile.write(file, np.float32(samples), rate, **how)
    return file.getvalue()


TONE = np.sin(np.arange(96_000)*2*np.pi*440/96_000)*.5  # 1 s at 96 kHz
GOOD = {"8-bit": packed(TONE[::12], 8_000, format="WAV", subtype="PCM_U8"), "96 kHz": packed(TONE, 96_000, format="WAV", subtype="PCM_24"),
        "stereo": packed(np.stack([TONE[::2]]*2, 1), 48_000, format="FLAC"), "mp3": packed(TONE[::2], 48_000, format="MP3"),
        "opus": packed(TONE[::2], 48_000, format="OGG", subtype="OPUS"), "five channels": packed(np.stack([TONE[::6]]*5, 1), SR, format="WAV")}


@pytest.mark.parametrize("kind", GOOD)
def test_every_format_is_the_same_tone(kind):
    wav = load_audio(GOOD[kind])
    assert wav.dtype == np.float32 and wav.shape == (SR,)
    assert np.abs(wav - TONE[::6])[2000:-2000].max() < .02


M4A = b"\0\0\0\x1cftypM4A \0\0\x02\0isomiso2M4A mp41" + bytes(200)  # begins as one, and ends too soon
BAD = {"file not found": "no/such/clip.wav", "empty file": b"", "no samples": packed([], format="WAV"),
       "samples that are not numbers": packed([0, np.inf, np.nan], format="WAV", subtype="FLOAT")}


@pytest.mark.parametrize("fault, source", [*BAD.items(), ("samples that are not numbers", packed([0, 1e20, -1e20], format="WAV", subtype="FLOAT")), *[("cannot be decoded", b) for b in (
    b"<html>404", M4A, GOOD["mp3"][:20], GOOD["opus"][:100], b"RIFF" + bytes(40))]], ids=itertools.count())  # an Opus file's number is drawn
def test_a_bad_clip_has_a_fault_and_a_remedy(fault, source):
    with pytest.raises(BadAudio) as e: load_audio(source)
    assert e.value.fault == fault and isinstance(e.value, UserError)
    assert "; " in str(e.value) and "\n" not in str(e.value)  # what was seen; what to do
    again = pickle.loads(pickle.dumps(e.value))  # it comes out of a worker whole
    assert (again.fault, str(again)) == (fault, str(e.value))


def test_a_cut_off_mp3_is_what_is_left_of_it():
    "An MP3 has no length in its header that could be missed: half of it is a shorter clip, which `data.checks` compares with the table."
    assert 0 < len(load_audio(GOOD["mp3"][:len(GOOD["mp3"])//2])) < SR


def test_an_extended_window_is_whole():
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration
    config = WhisperConfig(d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
                           encoder_ffn_dim=32, decoder_ffn_dim=32, max_source_positions=100, vocab_size=60, pad_token_id=0,
                           bos_token_id=1, eos_token_id=1, decoder_start_token_id=2)
    model, extractor = WhisperForConditionalGeneration(config).eval(), WhisperFeatureExtractor(chunk_length=2)
    old = model.get_encoder().embed_positions.weight.clone()
    audio.extend_window(model, extractor, 3.)
    assert torch.equal(model.get_encoder().embed_positions.weight[:100], old)
    assert not model.get_encoder().embed_positions.weight.requires_grad
    mel = extractor(NOISE[:3*SR], sampling_rate=SR, return_tensors="pt").input_features
    assert mel.shape == (1, 80, 300) and model(mel, decoder_input_ids=torch.tensor([[2]])).logits.isfinite().all()
    again = WhisperFeatureExtractor(**extractor.to_dict())  # as it is saved and loaded
    assert (again.n_samples, again.nb_max_frames) == (extractor.n_samples, extractor.nb_max_frames) == (3*SR, 300)
    for wrong in (1., 3.5, float("nan"), float("inf")):
        with pytest.raises(UserError, match="in whole seconds"): audio.extend_window(model, extractor, wrong)
