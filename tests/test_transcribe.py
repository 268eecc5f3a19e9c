"Decoding in bulk: two engines, long recordings, processes, and files that are continued."
import contextlib, json, shutil, sys, threading, time, warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np, pandas as pd, peft, pytest, soundfile, torch
from transformers import WhisperForConditionalGeneration

from whisper_tutorial import UserError
from whisper_tutorial.core import asset
from whisper_tutorial.data.corpus import load_corpus, make_corpus, select, with_column
from whisper_tutorial.evaluation import transcribe as tr
from whisper_tutorial.speech.audio import SR, as_flac, load_audio, log_mel, pad_to
from whisper_tutorial.speech.text import prompt_tokens

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def clips(): return select(load_corpus("common_voice:data/accents"), {"split": "test"}).select(range(0, 188, 16))  # 12


@pytest.fixture(scope="module")
def engine(): return tr.load_engine("data/nano", device="cpu")


@pytest.fixture(scope="module")
def table(engine, clips): return tr.decode(engine, clips)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    "The embedded model as CTranslate2 reads it."
    pytest.importorskip("faster_whisper")
    from ctranslate2.converters import TransformersConverter
    folder = tmp_path_factory.mktemp("converted")/"nano"
    TransformersConverter(str(asset("nano")), copy_files=["tokenizer.json", "preprocessor_config.json"]).convert(str(folder))
    return folder


@pytest.fixture(scope="module")
def twin(converted): return tr.load_engine(converted, device="cpu")


def sound(*wavs): return make_corpus([dict(id=f"sound {i}", audio=as_flac(wav), language="en") for i, wav in enumerate(wavs)], "sounds")


def test_what_was_heard_stays_what_it_is(engine, clips):
    "transformers repeats it for each beam, in place: times of words would be read off other clips."
    few = clips.select(range(4))
    alone, together = (tr.decode(engine, few, beams=3, words=True, batch_size=n) for n in (1, 4))
    for one, other in zip(alone["segments"], together["segments"]):
        assert [w["word"] for w in one[0]["words"]] == [w["word"] for w in other[0]["words"]]
        np.testing.assert_allclose([w["start_s"] for w in one[0]["words"]], [w["start_s"] for w in other[0]["words"]], atol=.05)


def test_beams_that_share_the_sound_write_what_beams_with_copies_write(engine, clips, monkeypatch):
    few = clips.select(range(4))
    shared = tr.decode(engine, few, beams=3)
    monkeypatch.setattr(tr, "shared_sound", lambda *args: contextlib.nullcontext())
    plain = tr.decode(engine, few, beams=3)
    assert shared["text"].tolist() == plain["text"].tolist()
    np.testing.assert_allclose(shared["logprob"], plain["logprob"], rtol=1e-4)
    assert engine.model.config._attn_implementation == "sdpa"


def test_decode_writes_what_transcribe_writes(engine, clips, table):
    assert table["text"].tolist() == tr.transcribe(engine.model, clips, engine.tokenizer, device="cpu")
    assert table["id"].tolist() == clips["id"][:] and (table["language"] == "en").all()
    assert table["language_probability"].isna().all() and (table["logprob"] < 0).all()
    for segments, text, seconds in zip(table["segments"], table["text"], clips["duration_s"]):
        assert segments == [dict(start_s=0., end_s=round(seconds, 2), text=text)]


def test_the_order_and_the_size_of_batches_change_nothing(engine, clips, table):
    backwards = tr.decode(engine, clips.select(range(11, -1, -1)), batch_size=5)
    pd.testing.assert_frame_equal(backwards[::-1].reset_index(drop=True), table, atol=2e-4)


def test_a_model_in_memory_stays_as_it_was(engine, clips, table):
    engine.model.train()
    state = torch.get_rng_state()
    try: assert tr.decode(engine.model, clips.select([0]), engine.tokenizer)["text"][0] == table["text"][0]
    finally: still_training = engine.model.training; engine.model.eval()
    assert still_training and torch.equal(torch.get_rng_state(), state)
    assert engine.model.config._attn_implementation != "eager"


def test_both_engines_write_the_same(twin, clips, table):
    other = tr.decode(twin, clips)
    same = other["text"] == table["text"]
    assert same.sum() >= 11
    np.testing.assert_allclose(other["logprob"][same], table["logprob"][same], atol=2e-3)
    np.testing.assert_allclose(other["no_speech"], table["no_speech"], atol=1e-3)


def test_beams_and_word_times_agree_too(engine, twin, clips):
    some = clips.select(range(6, 12))
    ours, theirs = (tr.decode(e, some, beams=3, words=True) for e in (engine, twin))
    same = ours["text"] == theirs["text"]  # the two end a search by rules of their own
    assert same.any()
    np.testing.assert_allclose(ours["logprob"][same], theirs["logprob"][same], atol=2e-3)
    off = []
    for one, other, seconds in zip(ours["segments"], theirs["segments"], some["duration_s"]):
        words = one[0]["words"]
        assert " ".join(w["word"] for w in words) == one[0]["text"]
        assert all(0 <= w["start_s"] <= w["end_s"] <= seconds + .05 for w in words)
        if one[0]["text"] == other[0]["text"]:
            off += [abs(a["start_s"] - b["start_s"]) for a, b in zip(words, other[0]["words"])]
            np.testing.assert_allclose(*([w["probability"] for w in found[0]["words"]] for found in (one, other)), atol=.002)
    assert np.median(off) <= .06  # seconds; of words that were misheard, attention is blurred


def test_a_language_is_detected_where_it_is_unknown(engine, twin, clips):
    mixed = with_column(clips.select(range(2)), "language", ["en", None])
    found = tr.decode(engine, mixed)
    assert found["language"].tolist() == ["en", "en"] and np.isnan(found["language_probability"][0])
    assert .9 < found["language_probability"][1] <= 1
    assert tr.decode(engine, mixed, language="detect")["language_probability"].notna().all()
    with pytest.raises(UserError, match="name it with `language`, or use the engine `transformers`"): tr.decode(twin, mixed)


def test_silence_has_figures_too(engine):
    found = tr.decode(engine, sound(np.zeros(SR, np.float32)))
    assert (found["text"][0], found["compression_ratio"][0]) == ("", 0.) and found["logprob"][0] <= 0
    assert found["segments"][0] == []


def test_half_a_line_is_decoded_again_and_other_files_are_refused(engine, clips, tmp_path):
    out, some = tmp_path/"decoded.csv", clips.select(range(6))
    def run(**how): return tr.decode(engine, some, out=out, **dict(batch_size=2) | how)
    whole, bytes_ = run(), out.read_bytes()
    lines = bytes_.splitlines(keepends=True)
    for cut in (len(lines[0]), len(lines[0]) + 9, len(bytes_) - 1, len(bytes_) - 25, len(b"".join(lines[:4]))):
        out.write_bytes(bytes_[:cut])
        pd.testing.assert_frame_equal(run(), whole)
        assert out.read_bytes() == bytes_
    out.write_bytes(bytes_[:-30] + "ü".encode()[:1])  # killed within a letter
    pd.testing.assert_frame_equal(run(), whole)
    from_file = pd.read_csv(out)
    assert from_file["text"].tolist() == whole["text"].tolist()
    assert json.loads(from_file["segments"][0]) == whole["segments"][0]
    with pytest.raises(UserError, match="beams: 1 then, 3 now"): run(beams=3)
    with pytest.raises(UserError, match="clips: "): tr.decode(engine, clips.select([0]), out=out)
    with torch.no_grad(): engine.model.proj_out.weight[5, 5] += 1
    try:
        with pytest.raises(UserError, match="model: "): run()
    finally:
        with torch.no_grad(): engine.model.proj_out.weight[5, 5] -= 1
    (tmp_path/"mine.csv").write_text("id,text\n")
    with pytest.raises(UserError, match="nothing says of which"): tr.decode(engine, some, out=tmp_path/"mine.csv")
    assert (tmp_path/"mine.csv").read_text() == "id,text\n"


def test_a_finished_file_is_not_decoded_again(engine, clips, tmp_path, monkeypatch):
    some, out = clips.select(range(2)), tmp_path/"decoded.csv"
    first = tr.decode(engine, some, out=out)
    monkeypatch.setattr(tr, "hear", None)
    pd.testing.assert_frame_equal(tr.decode(engine, some, out=out), first)


def test_two_processes_write_the_same(engine, clips, table, tmp_path):
    found = tr.decode(engine, clips, processes=2, batch_size=4, out=tmp_path/"decoded.csv")
    pd.testing.assert_frame_equal(found, table, atol=2e-4)


def test_training_measures_in_halves_too(engine, clips, table, monkeypatch):
    whole = tr.greedy_tokens
    def small(model, mel, *args):
        if len(mel) > 5: raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return whole(model, mel, *args)
    monkeypatch.setattr(tr, "greedy_tokens", small)
    with pytest.warns(UserWarning, match="going on with"): found = tr.transcribe(engine.model, clips, engine.tokenizer, device="cpu")
    assert found == table["text"].tolist()


def test_a_batch_that_does_not_fit_is_halved(engine, clips, table, monkeypatch):
    listen = tr.TransformersEngine.listen
    def small(self, mel):
        if len(mel) > 3: raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return listen(self, mel)
    monkeypatch.setattr(tr.TransformersEngine, "listen", small)
    monkeypatch.setattr(engine, "at_once", None)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = tr.decode(engine, clips)
    assert found["text"].tolist() == table["text"].tolist()
    assert [str(w.message) for w in told if "at once" in str(w.message)] == [
        "12 windows at once do not fit into memory: going on with 6", "6 windows at once do not fit into memory: going on with 3"]
    def full(self, mel): raise RuntimeError("CUDA out of memory")
    monkeypatch.setattr(tr.TransformersEngine, "listen", full)
    with pytest.raises(UserError, match="not even one window"): tr.decode(engine, clips.select([0]))


@pytest.fixture(scope="module")
def radio(clips):
    "A minute and a half, in which every clip is followed by two seconds of silence; the last window is full."
    parts = [np.concatenate([load_audio(a), np.zeros(2*SR, np.float32)]) for a in clips["audio"]]
    return pad_to(np.concatenate(parts), 60*SR)


def test_a_long_recording_is_cut_where_nobody_speaks(engine, twin, clips, radio, table):
    pytest.importorskip("faster_whisper")
    found = tr.decode(engine, sound(radio), long="vad", chunk_s=3., words=True)
    segments = found["segments"][0]
    starts = np.cumsum([0] + [s + 2 for s in clips["duration_s"]])[:-1]
    assert len(segments) == 12
    for segment, start, seconds in zip(segments, starts, clips["duration_s"]):
        assert start - .2 <= segment["start_s"] < segment["end_s"] <= start + seconds + .3
        assert segment["words"][0]["start_s"] >= segment["start_s"] and segment["words"][-1]["end_s"] <= segment["end_s"] + .05
    assert found["text"][0] == " ".join(s["text"] for s in segments)
    assert sum(s["text"] == t for s, t in zip(segments, table["text"])) >= 3  # the others sound otherwise to it, cut tighter
    other = tr.decode(twin, sound(radio), long="vad", chunk_s=3.)
    assert sum(a["text"] == b["text"] for a, b in zip(segments, other["segments"][0])) >= 11
    silent = tr.decode(engine, sound(np.zeros(40*SR, np.float32)), long="vad")
    assert (silent["text"][0], silent["segments"][0]) == ("", []) and pd.isna(silent["logprob"][0])


def test_regions_are_in_order_and_none_is_too_long(radio):
    pytest.importorskip("faster_whisper")
    crowded = radio[np.abs(radio) > 0]
    for max_s in (1., 3., 30.):
        regions = tr.voice_activity(crowded, max_s=max_s)
        assert all(b - a <= max_s + 1e-6 for a, b in regions) and 0 <= regions[0][0] and regions[-1][1] <= len(crowded)/SR
        assert all(b <= c for (_, b), (c, _) in zip(regions, regions[1:]))
    assert len(tr.voice_activity(radio, min_pause_s=3., max_s=np.inf)) == 1


def test_window_by_window_is_what_transformers_does(engine, radio, monkeypatch):
    "Without a second attempt and text before the window, where its long form can be compared with the authors'."
    monkeypatch.setattr(tr, "TEMPERATURES", (0.,))
    monkeypatch.setattr(tr, "SILENT", 2.)
    windows = []
    monkeypatch.setattr(tr, "finished_part", lambda *a, real=tr.finished_part: windows.append(real(*a)) or windows[-1])
    write = tr.TransformersEngine.write
    def without_context(self, heard, prompts, *how):
        return write(self, heard, [p[p.index(self.tokenizer.convert_tokens_to_ids(tr.START)):] for p in prompts], *how)
    monkeypatch.setattr(tr.TransformersEngine, "write", without_context)
    tr.decode(engine, sound(radio), long="sequential", max_new_tokens=40)
    mel = torch.from_numpy(log_mel(pad_to(radio, len(radio) + 30*SR)))[None, :, :6000]
    settings = engine.model.generation_config
    monkeypatch.setattr(settings, "max_initial_timestamp_index", 50, raising=False)
    with torch.inference_mode():
        theirs = engine.model.generate(mel, attention_mask=torch.ones(1, 6000), return_timestamps=True, return_segments=True,
                                       language="en", task="transcribe", condition_on_prev_tokens=False, max_new_tokens=40)
    expected = [i for segment in theirs["segments"][0] for i in segment["tokens"].tolist()]
    assert [i for tokens, _ in windows for i in tokens] == expected and len(windows) > 1 and len(expected) > 20


def test_what_is_drawn_by_chance_is_the_same_each_time(engine, twin, radio, monkeypatch):
    monkeypatch.setattr(tr, "TEMPERATURES", (0., 1.))
    monkeypatch.setattr(tr, "UNSURE", 0.)  # nothing is good enough: all is drawn
    monkeypatch.setattr(tr, "SILENT", 2.)
    for e in (engine, twin):
        two = sound(radio[:35*SR], radio[10*SR:45*SR])
        how = dict(long="sequential", max_new_tokens=20)
        first = tr.decode(e, two, **how)
        pd.testing.assert_frame_equal(tr.decode(e, two, **how), first)
        alone = tr.decode(e, two.select([1]), **how)
        assert alone["text"][0] == first["text"][1]
        assert first["text"][0] != tr.decode(e, with_column(two.select([0]), "id", ["another"]), **how)["text"][0]


WORD = dict(word="do", start_s=.5, end_s=1., probability=.25)


def says(text="do", **other):
    "One window of a long recording, at ten seconds, as `in_sequence` gives it."
    segment = dict(start_s=0., end_s=2., text=text, words=[WORD])
    return dict(tokens=[1], text=text, language="en", language_probability=None, logprob=-.1, compression_ratio=1.,
                no_speech=0., segments=[segment], start_s=10.) | other


def hours(n): return sound(*(np.zeros(SR*(31 + i), np.float32) for i in range(n)))  # the last is the longest


def test_a_long_recording_is_a_job_of_its_own_and_short_clips_stay_together(engine):
    short, asked = [3., 9., 2., 30., 7.], tr.Asked(batch_size=2)
    assert tr.jobs_of(engine, short, asked) == tr.batches_by_length(short, 2)
    assert tr.jobs_of(engine, [*short, 31., None, 3600.], asked) == [[7], [5], [3, 1], [4, 0], [2, 6]]
    assert tr.jobs_of(engine, [], asked) == []


def test_whoever_is_killed_in_the_fourth_of_five_long_recordings_has_three(engine, tmp_path, monkeypatch):
    out, events, five = tmp_path/"decoded.csv", [], hours(5)
    def load(audio, real=load_audio): events.append("load"); return real(audio)
    def listen(engine, wav, *how):
        if events.count("hear") == 3 and "killed" not in events: events.append("killed"); raise KeyboardInterrupt
        events.append("hear")
        return [says(f"{len(wav)/SR:g}")]
    monkeypatch.setattr(tr, "load_audio", load)
    monkeypatch.setattr(tr, "in_sequence", listen)
    with pytest.raises(KeyboardInterrupt): tr.decode(engine, five, long="sequential", words=True, out=out)
    assert events == ["load", "hear"]*3 + ["load", "killed"]  # one sound in memory at a time
    assert pd.read_csv(out)["id"].tolist() == ["sound 4", "sound 3", "sound 2"]
    found = tr.decode(engine, five, long="sequential", words=True, out=out)
    assert events.count("hear") == 5 and found["text"].tolist() == ["31", "32", "33", "34", "35"]
    assert found["id"].tolist() == five["id"][:] == pd.read_csv(out)["id"].tolist()
    pd.testing.assert_frame_equal(found, tr.decode(engine, five, long="sequential", words=True))


def test_two_long_recordings_go_to_two_processes(engine, tmp_path, monkeypatch):
    pytest.importorskip("faster_whisper")
    made, two = [], hours(2)
    monkeypatch.setattr(tr, "ProcessPoolExecutor",
                        lambda n, *how, real=tr.ProcessPoolExecutor: made.append((n, how[-1][2])) or real(n, *how))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    found = tr.decode(engine, two, long="vad", processes=4, out=tmp_path/"decoded.csv")
    assert made == [(2, 4)]  # processes; threads of each
    pd.testing.assert_frame_equal(found, tr.decode(engine, two, long="vad"))


def test_what_was_decoded_beside_a_failure_is_kept(engine, tmp_path, monkeypatch):
    out, two, both_began = tmp_path/"decoded.csv", hours(2), threading.Barrier(2, timeout=30)
    def rows(engine, clips, asked):
        both_began.wait()
        if clips[0]["id"] == "sound 1": raise UserError("unreadable")
        time.sleep(.3)
        return [tr.as_row(clips[0]["id"], [says()], "en", asked)]
    monkeypatch.setattr(tr, "decode_rows", rows)
    monkeypatch.setattr(tr, "ProcessPoolExecutor", lambda n, *how: ThreadPoolExecutor(n))
    monkeypatch.setattr(tr, "SHARE", dict(engine=engine, corpus=two, asked=tr.Asked(long="vad")))
    with pytest.raises(UserError, match="unreadable"): tr.decode(engine, two, long="vad", processes=2, out=out)
    assert pd.read_csv(out)["id"].tolist() == ["sound 0"]


@pytest.mark.parametrize("language, task, text", [
    ("th", "transcribe", "กข"), ("Thai", "transcribe", "กข"), ("zh-TW", "transcribe", "กข"), ("en", "transcribe", "ก ข"),
    ("Thai", "translate", "ก ข"), (None, "transcribe", "ก ข")])
def test_windows_are_joined_as_their_language_is_written(language, task, text):
    parts = [says(part, language=language) for part in ("ก", "", "ข")]
    assert tr.as_row("a", parts, language, tr.Asked(task=task))["text"] == text


def test_the_words_of_a_translation_are_english(engine, clips, monkeypatch):
    asked = []
    monkeypatch.setattr(tr, "word_times", lambda *a: asked.append(a[-1]) or [])
    few, known = [load_audio(clips["audio"][0])], [("Thai", None)]
    prompt = prompt_tokens(engine.tokenizer, "en")
    with torch.inference_mode():
        heard = engine.listen(np.stack([tr.window_mel(wav, engine.n_samples, engine.n_mels) for wav in few]))
        for task in tr.TASKS:
            tr.explained(engine, heard, [prompt], [dict(tokens=[5])], [1.], known, tr.Asked(task=task, words=True))
    assert asked == [dict(transcribe="Thai", translate="en")[task] for task in tr.TASKS]


@pytest.mark.parametrize("long", tr.LONG)
def test_where_nobody_was_heard_no_language_is_named(engine, tmp_path, monkeypatch, long):
    monkeypatch.setattr(tr, "voice_activity", lambda wav, max_s: [])
    monkeypatch.setattr(tr, "with_fallback", lambda *how: None)
    both = sound(np.zeros(SR*31, np.float32), np.zeros(SR, np.float32))
    for some, languages in ((both.select([0]), [""]), (both, ["", "en"])):
        how, out = dict(language="detect", long=long, words=True), tmp_path/f"{len(some)}.csv"
        found = tr.decode(engine, some, out=out, **how)
        assert found["language"].fillna("").tolist() == languages and found["text"].tolist() == [""]*len(some)
        assert found["segments"].tolist() == [[]]*len(some)
        assert found.loc[0, ["language", "language_probability", "logprob", "compression_ratio", "no_speech"]].isna().all()
        pd.testing.assert_frame_equal(tr.decode(engine, some, out=out, **how), found)
        made_by = json.loads(out.with_name(out.name + ".json").read_text())
        assert tr.Decoded(out, made_by).read([])["sound 0"]["language"] is None


def test_a_row_comes_back_from_the_csv_as_it_was(tmp_path):
    "The words of a long recording, moved, with their probabilities; and whatever a text may hold."
    texts = ["do", 'a, "b"', "one\rtwo", "one\ntwo", "กข"]
    rows = [tr.as_row(f"clip {i}", [says(text)], "en", tr.Asked()) for i, text in enumerate(texts)]
    assert rows[0]["segments"][0]["words"] == [WORD | dict(start_s=10.5, end_s=11.)]
    made_by = dict(model="a")
    file = tr.Decoded(tmp_path/"decoded.csv", made_by)
    assert file.read([]) == {}
    file.add(rows)
    assert [*tr.Decoded(tmp_path/"decoded.csv", made_by).read([]).values()] == rows
    assert pd.read_csv(tmp_path/"decoded.csv")["text"].tolist() == texts


def test_the_probabilities_of_words_outlive_a_kill(engine, clips, tmp_path, monkeypatch):
    out, few = tmp_path/"decoded.csv", clips.select(range(2))
    first = tr.decode(engine, few, words=True, out=out)
    monkeypatch.setattr(tr, "hear", None)
    found = tr.decode(engine, few, words=True, out=out)
    pd.testing.assert_frame_equal(found, first)
    assert all(0 <= word["probability"] <= 1 for row in found["segments"] for word in row[0]["words"])


def test_timestamps_cut_a_text_into_segments(engine, clips):
    found = tr.decode(engine, clips.select([0]), timestamps=True, max_new_tokens=30)
    for segment in found["segments"][0]: assert 0 <= segment["start_s"] <= segment["end_s"] <= clips["duration_s"][0] + .01


def test_an_adapter_is_merged_into_its_base(engine, clips, tmp_path):
    torch.manual_seed(0)
    base = WhisperForConditionalGeneration.from_pretrained(asset("nano"), dtype=torch.float32)
    wrapped = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    wrapped.save_pretrained(tmp_path)
    settings = json.loads((tmp_path/"adapter_config.json").read_text())
    (tmp_path/"adapter_config.json").write_text(json.dumps(settings | dict(base_model_name_or_path="data/nano")))
    merged = tr.load_engine(tmp_path, device="cpu")
    some = clips.select(range(2))
    expected = tr.transcribe(wrapped.merge_and_unload(), some, engine.tokenizer, device="cpu")
    assert tr.decode(merged, some)["text"].tolist() == expected
    assert tr.weights_digest(merged) != tr.weights_digest(engine)


def test_other_precisions(clips, table, converted):
    half = tr.load_engine("data/nano", device="cpu", precision="bf16")
    assert (tr.decode(half, clips)["text"] == table["text"]).sum() >= 8
    assert (tr.decode(tr.load_engine(converted, device="cpu", precision="int8"), clips)["text"] == table["text"]).sum() >= 8


def test_what_cannot_be_loaded_says_why(converted, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="cannot read it; give engine `faster-whisper`"): tr.load_engine(converted, "transformers")
    with pytest.raises(UserError, match="--copy_files tokenizer.json"): tr.load_engine("data/nano", "faster-whisper", "cpu")
    with pytest.raises(UserError, match="Did you mean `faster-whisper`"): tr.load_engine("data/nano", "fasterwhisper")
    with pytest.raises(UserError, match="no Whisper at"): tr.load_engine("nobody/nothing")
    with pytest.raises(UserError, match="Klingon"): tr.decode(tr.load_engine(converted, device="cpu"), sound(np.zeros(SR, np.float32)), language="Klingon")
    shutil.copytree(converted, tmp_path/"bare")
    (tmp_path/"bare"/"tokenizer.json").unlink()
    with pytest.raises(UserError, match="no tokenizer.json"): tr.load_engine(tmp_path/"bare", device="cpu")
    with pytest.raises(UserError, match="knows .* device|has no device `mps`"): tr.load_engine(converted, device="mps")
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(UserError, match="pip install faster-whisper"): tr.load_engine(converted, device="cpu")
    with pytest.raises(UserError, match="pip install faster-whisper"): tr.voice_activity(np.zeros(SR, np.float32))


def test_what_cannot_be_decoded_says_why(engine, clips, radio):
    long = sound(radio)
    with pytest.raises(UserError, match='`long` "sequential"'): tr.decode(engine, long)
    with pytest.raises(UserError, match='`long` "sequential"'): tr.decode(engine, with_column(long, "duration_s", [None]))
    with pytest.raises(UserError, match="give `long` sequential or vad"): tr.decode(engine, clips, long="chunks")
    with pytest.raises(UserError, match="`batch_size` is 2.5"): tr.decode(engine, clips, batch_size=2.5)
    with pytest.raises(UserError, match="knows no language"): tr.decode(engine, with_column(clips, "language", ["xx"]*12))
    with pytest.raises(UserError, match="give its folder"): tr.decode(engine.model, clips, engine.tokenizer, processes=2, batch_size=4)
    with pytest.raises(UserError, match="longer `max_s`"): tr.voice_activity(radio, max_s=.1)


def test_an_empty_corpus_gives_an_empty_table(engine, clips, tmp_path):
    nothing = tr.decode(engine, clips.select([]), out=tmp_path/"decoded.csv")
    assert list(nothing.columns) == list(tr.COLUMNS) and len(nothing) == 0
    assert (tmp_path/"decoded.csv").read_text() == ",".join(tr.COLUMNS) + "\n"
