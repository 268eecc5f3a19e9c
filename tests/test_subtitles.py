"Recordings with subtitles as people have them: every way to write them down, every time that cannot be."
import errno, json, os, shutil, tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np, pytest, soundfile
from hypothesis import given, settings, strategies as st
from whisper_tutorial import UserError
from whisper_tutorial.data import subtitles
from whisper_tutorial.data.checks import check_corpus
from whisper_tutorial.data.corpus import FEATURES, load_corpus
from whisper_tutorial.data.subtitles import (
    Cue, clean, cut_clip, find_faults, in_frames, join_cues, join_texts, load_subtitles, read_cues, spans_of, strip_tags, unroll)
from whisper_tutorial.speech.audio import HOP, SR, load_audio


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("WHISPER_TUTORIAL_CACHE", str(folder))
    return folder


def clock(s, comma=","): return f"{int(s//3600):02}:{int(s//60%60):02}:{s%60:06.3f}".replace(".", comma)


def srt(*cues): return "".join(f"{n}\n{clock(a)} --> {clock(b)}\n{text}\n\n" for n, (a, b, text) in enumerate(cues, 1))


def sound(seconds, words, rate=SR):
    "Bursts of noise in near silence, where words are."
    rng = np.random.default_rng(0)
    wav = .0005*rng.standard_normal(int(seconds*rate))
    for a, b in words: wav[int(a*rate):int(b*rate)] += .2*rng.standard_normal(int(b*rate) - int(a*rate))
    return wav.astype(np.float32)


WORDS = [(1, 2), (3, 4), (5, 6)]
THREE = [(1, 2, "One."), (3, 4, "Two."), (5, 6, "Three.")]


def make(folder, name="talk", text=srt(*THREE), suffix=".flac", code=".srt"):
    folder.mkdir(exist_ok=True, parents=True)
    soundfile.write(folder/(name + suffix), sound(8, WORDS), SR)
    if text is not None: (folder/(name + code)).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def ids(corpus): return corpus["id"][:]


def judged(corpus):
    "Ids of the clips that are kept, and of the others; none is lost."
    kept, quarantined, _ = check_corpus(corpus)
    assert len(kept) + len(quarantined) == len(corpus)
    return ids(kept), ids(quarantined)


# --- reading -----------------------------------------------------------------------------------------------------------

words = st.text("abc .,!?«é漢だ\u200dहि", min_size=1, max_size=12).map(str.strip).filter(lambda s: s and not s.isdigit())
times = st.integers(0, 500_000_000).map(lambda ms: ms/1000)  # 139 hours


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(times, times, st.lists(words, min_size=1, max_size=3)), max_size=6),
       st.booleans(), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_what_is_written_is_read(tmp_path_factory, cues, vtt, newline, bom):
    body = "".join(f"{n}\n{clock(a, '.' if vtt else ',')} --> {clock(b, '.' if vtt else ',')}\n" + "\n".join(lines) + "\n\n"
                   for n, (a, b, lines) in enumerate(cues, 1))
    text = ("\ufeff" if bom else "") + ("WEBVTT\n\n" if vtt else "") + body
    path = tmp_path_factory.mktemp("read")/"a.srt"
    path.write_bytes(text.replace("\n", newline).encode())
    assert [(c.start, c.end, c.text) for c in read_cues(path)] == [(a, b, "\n".join(lines)) for a, b, lines in cues]


def test_hours_over_99(tmp_path):
    (tmp_path/"a.srt").write_text("1\n123:00:01,000 --> 123:00:02,000\nLate.\n")
    assert read_cues(tmp_path/"a.srt")[0].start == 123*3600 + 1


def test_as_pysubs2_reads_good_files(tmp_path):
    pysubs2 = pytest.importorskip("pysubs2")
    text = srt((1, 2.5, "One\nline"), (3, 4, "<i>Two</i>"), (3700, 3701.25, "Three"))
    (tmp_path/"a.srt").write_text(text)
    ours = [(c.start, c.end, strip_tags(c).text.split("\n")) for c in read_cues(tmp_path/"a.srt")]
    assert ours == [(e.start/1000, e.end/1000, e.plaintext.split("\n")) for e in pysubs2.SSAFile.from_string(text)]


bits = st.sampled_from(["1", "23", "00:00:01,000 --> 00:00:02,000", "00:01.5 --> 0", "-->", "--> 00:00:03,000", "WEBVTT", "NOTE", "", " ",
                        "-00:00:05,000 --> 00:00:01,000", "<v", "<v A>b", "[x", "(y)", "♪", "♪ la", "JOHN:", ">>", "- a", "{\\an8}", "&lt;&amp",
                        "<00:00:01.000>", "#", "…", "Hi.", "漢字", "\u202eabc", "00:00:09,000 --> 99999999999:00:00,000", "٠٠:٠٠:٠١ --> ٠٠:٠٠:٠٢"])


@settings(max_examples=150, deadline=None)
@given(st.lists(bits, max_size=25))
def test_nothing_that_is_written_is_an_error(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("odd")/"a.vtt"
    path.write_text("\n".join(lines), encoding="utf-8")
    raw = read_cues(path)
    assert sum("-->" in line for line in lines) <= len(raw)  # whatever has times is a cue, possible or not
    cues = find_faults([clean(c) for c in unroll([strip_tags(c) for c in raw])])
    clips = join_cues([c for c in cues if not c.fault])
    assert sorted(c.line for clip in clips for c in clip) == sorted(c.line for c in cues if not c.fault)
    for start, end, before, after in spans_of(clips, cues): assert 0 <= start < end and before <= end and start <= after


def test_wrong_encoding_is_refused_with_a_remedy(tmp_path):
    make(tmp_path, text="1\n00:00:01,000 --> 00:00:02,000\ncafé\n".encode("latin-1"))
    with pytest.raises(UserError, match="talk.srt.*save it as UTF-8"): load_subtitles(tmp_path)


@pytest.mark.parametrize("text", ["", "\n\n", "WEBVTT\n", "\ufeff", "WEBVTT\n\nNOTE nothing yet\n"])
def test_empty_subtitles_are_told(tmp_path, text):
    make(tmp_path, text=text)
    assert ids(load_subtitles(tmp_path)) == ["talk.srt (holds no subtitles)"]


# --- joining -----------------------------------------------------------------------------------------------------------

steps = st.tuples(st.sampled_from(["one", "two.", "Three?", "", "Mr.", "四。", None]), st.floats(.1, 40), st.sampled_from([0, 0, .1, .5, 3]),
                  st.sampled_from([None, "A", "B"]), st.integers(0, 2))


@settings(max_examples=200, deadline=None)
@given(st.lists(steps, max_size=40), st.sampled_from([5., 28.]))
def test_joining_loses_no_word_and_keeps_the_order(some, max_s):
    cues, now = [], 0
    for n, (text, seconds, gap, speaker, turns) in enumerate(some):
        cues.append(Cue(n, now + gap, now + gap + seconds, text, speaker, turns))
        now += gap + seconds
    clips = join_cues(cues, max_s)
    assert [c for clip in clips for c in clip] == cues
    for clip in clips:
        assert len(clip) == 1 or (all(c.text for c in clip) and clip[-1].end - clip[0].start <= max_s)
        joined = join_texts(c.text for c in clip if c.text)
        assert "".join(joined.split()) == "".join("".join(c.text.split()) for c in clip if c.text)


# --- captions that roll ------------------------------------------------------------------------------------------------

LINES = ["so today we are", "going to talk about", "the the the weather", "the weather", "and nothing else"]


def youtube(lines):
    "As YouTube writes its automatic captions."
    out, above = ["WEBVTT\nKind: captions\nLanguage: en\n"], " "
    for n, line in enumerate(lines):
        a, b = 3*n + .16, 3*n + 3.15
        first, *rest = line.split()
        timed = first + "".join(f"<{clock(a + .1*k, '.')}><c> {word}</c>" for k, word in enumerate(rest, 1))
        out += [f"{clock(a, '.')} --> {clock(b, '.')} align:start position:0%\n{above}\n{timed}\n",
                f"{clock(b, '.')} --> {clock(b + .01, '.')} align:start position:0%\n{line}\n \n"]
        above = line
    return "\n".join(out)


def cues_of(path, text):
    path.write_text(text)
    return unroll([strip_tags(c) for c in read_cues(path)])


def test_rolling_captions_of_youtube(tmp_path):
    assert [c.text for c in cues_of(tmp_path/"a.vtt", youtube(LINES))] == LINES
    converted = srt(*((c.start, c.end, strip_tags(c).text) for c in read_cues(tmp_path/"a.vtt")))  # as `--convert-subs srt` leaves them
    cues = cues_of(tmp_path/"a.srt", converted)
    assert [c.text for c in cues] == LINES
    assert not any(c.fault for c in find_faults(cues))


def test_captions_that_stay_while_the_next_is_said(tmp_path):
    cues = cues_of(tmp_path/"a.srt", srt(*((3*n, 3*n + 5.5, line) for n, line in enumerate(LINES))))
    assert [(c.start, c.end, c.text) for c in cues] == [(3*n, 3*n + (3 if n < 4 else 5.5), line) for n, line in enumerate(LINES)]


def test_captions_that_do_not_roll_keep_what_is_said_twice(tmp_path):
    cues = [(n, n + 1, text) for n, text in enumerate(["No!", "No!", "Row, row,\nrow", "row", "No!", "Yes.", "Yes.\nNo."])]
    assert [c.text for c in cues_of(tmp_path/"a.srt", srt(*cues))] == [text for *_, text in cues]


def test_rolling_captions_become_clips(tmp_path):
    make(tmp_path, text=youtube(["one two", "three four"]), code=".en-orig.vtt")
    corpus = load_subtitles(tmp_path)
    assert corpus["text"][:] == ["one two three four"] and corpus["language"][:] == ["en"]


# --- impossible times --------------------------------------------------------------------------------------------------

BAD = {"00:00:05,000 --> 00:00:03,000": "ends before it begins", "00:00:05,000 --> 00:00:05,000": "lasts no time",
       "-00:00:01,000 --> 00:00:02,000": "begins before the recording", "00:00:0x,000 --> 00:00:09,000": "its times cannot be read",
       "00:61:00,000 --> 00:62:00,000": "its times cannot be read", "--> 00:00:02,000": "its times cannot be read",
       "00:00:07,500 --> 00:00:11,000": "ends after the recording, which lasts 8.00 s", "00:00:06,500 --> 02:00:00,000": "lasts 7194 s",
       "00:00:09,000 --> 00:00:10,000": "begins after the end of the recording", "100:00:01,000 --> 100:00:02,000": "begins after the end of the recording"}


@pytest.mark.parametrize("times, why", BAD.items())
def test_impossible_times_are_quarantined_and_spoil_nothing(tmp_path, times, why):
    make(tmp_path, text=srt(*THREE) + f"4\n{times}\nWrong.\n\n")
    corpus = load_subtitles(tmp_path)
    assert corpus.features == FEATURES
    kept, quarantined = judged(corpus)
    assert kept == ["talk.srt:2", "talk.srt:6", "talk.srt:10"] and quarantined == [f"talk.srt:14 ({why})"]
    assert corpus["text"][:] == ["One.", "Two.", "Three.", "Wrong."]


def test_overlaps_are_quarantined(tmp_path):
    make(tmp_path, text=srt((1, 2, "One."), (3, 4, "Two."), (3.2, 4.5, "Both."), (4.6, 6, "Three.")))
    kept, quarantined = judged(load_subtitles(tmp_path))
    assert kept == ["talk.srt:2", "talk.srt:14"]
    assert quarantined == ["talk.srt:6 (overlaps line 10)", "talk.srt:10 (overlaps line 6)"]


def test_a_small_overlap_is_cut_at_one_place(tmp_path):
    make(tmp_path, text=srt((1, 2.6, "One."), (2.4, 4, "Two."), (5, 6, "Three.")))
    one, two, three = load_subtitles(tmp_path)
    assert 2.4 <= two["start_s"] <= 2.6 and abs(one["start_s"] + one["duration_s"] - two["start_s"]) < 1e-6


def test_cues_in_any_order(tmp_path):
    make(tmp_path, text=srt(*THREE[::-1]))
    assert load_subtitles(tmp_path)["text"][:] == ["Three.", "Two.", "One."]  # rows as in the file, each with its own sound
    for row, (a, b) in zip(load_subtitles(tmp_path), WORDS[::-1]): assert row["start_s"] <= a and row["start_s"] + row["duration_s"] >= b


# --- cuts --------------------------------------------------------------------------------------------------------------

gaps = st.lists(st.tuples(st.floats(-.2, 2), st.floats(.3, 3)), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(gaps, st.integers(0, 99))
def test_no_cut_is_in_a_neighbours_words(some, seed):
    cues, now = [], .3
    for n, (gap, seconds) in enumerate(some):
        now = max(now + gap, cues[-1].start + .05 if cues else 0)
        cues.append(Cue(n, now, now + seconds, "Word."))
        now = max(now + seconds, now)
    cues = find_faults(cues)
    clips = join_cues([c for c in cues if not c.fault])
    rng = np.random.default_rng(seed)
    wav = (rng.standard_normal(int((now + 2)*SR))*np.repeat(10**rng.uniform(-4, -.5, int((now + 2)*20) + 1), SR//20)[:int((now + 2)*SR)])
    wav, ends = wav.astype(np.float32), []
    for span in spans_of(clips, cues):
        start, end, low, high = in_frames(span)
        clip, first, fault = cut_clip(wav[min(start, low)*HOP:max(end, high)*HOP], (start, end, low, high))
        if fault: continue
        last = first + len(clip)//HOP
        assert min(start, low) <= first <= max(start, low) and min(end, high) <= last <= max(end, high)
        ends.append((first, last, start, end))
    for (_, last, _, _), (first, _, start, _) in zip(ends, ends[1:]): assert last <= max(first, start)


def test_cuts_wait_for_the_end_of_a_word(tmp_path):
    make(tmp_path, text=srt((1.1, 1.9, "One."), (3.15, 3.9, "Two."), (5.1, 5.8, "Three.")))
    for row, (a, b) in zip(load_subtitles(tmp_path), WORDS):
        assert a - .5 < row["start_s"] <= a and b <= row["start_s"] + row["duration_s"] < b + .5
        np.testing.assert_allclose(len(load_audio(row["audio"]))/SR, row["duration_s"])


def test_no_clip_is_longer_than_asked(tmp_path):
    folder = tmp_path/"long"; folder.mkdir()
    soundfile.write(folder/"talk.flac", sound(70, [(0, 70)]), SR)
    (folder/"talk.srt").write_text(srt(*((2*n, 2*n + 2, "and so on") for n in range(34))))
    assert max(load_subtitles(folder)["duration_s"]) <= 28
    short = load_subtitles(folder, max_s=5)
    assert max(short["duration_s"]) <= 5 and len(short) > len(load_subtitles(folder))
    assert " ".join(short["text"]) == " ".join(["and so on"]*34)


@pytest.mark.parametrize("suffix, subtype, rate", [(".mp3", None, 44_100), (".ogg", "VORBIS", 44_100), (".opus", "OPUS", 48_000), (".wav", "PCM_24", 8_000)])
def test_formats_and_rates(tmp_path, suffix, subtype, rate):
    stereo = np.stack([sound(8, WORDS, rate)]*2, 1)
    soundfile.write(tmp_path/f"talk{suffix}", stereo, rate, subtype=subtype, format="OGG" if suffix == ".opus" else None)
    (tmp_path/"talk.vtt").write_text("WEBVTT\n\n" + srt(*THREE).replace(",", "."))
    corpus, whole = load_subtitles(tmp_path), load_audio(tmp_path/f"talk{suffix}")
    assert judged(corpus) == (ids(corpus), []) and len(corpus) == 3
    for row in corpus:  # the same as the whole recording, decoded at once
        a = round(row["start_s"]*SR)
        np.testing.assert_allclose(load_audio(row["audio"]), whole[a:a + round(row["duration_s"]*SR)], atol=2e-3)


# --- recordings that are broken, or long ------------------------------------------------------------------------------

def test_undecodable_recordings_are_quarantined_with_the_decoders_reason(tmp_path):
    for name in ("empty", "noise"): (make(tmp_path, name)/f"{name}.flac").write_bytes(b"" if name == "empty" else b"noise"*500)
    make(tmp_path)
    kept, quarantined, _ = check_corpus(load_subtitles(tmp_path))
    assert len(kept) == 3 and ids(quarantined) == ["empty.flac", "noise.flac"]
    assert [r.split(":")[0] for r in quarantined["reason"]] == ["empty file", "cannot be decoded"]


def test_a_recording_that_is_cut_off(tmp_path):
    path = make(tmp_path)/"talk.flac"
    soundfile.write(path, sound(60, WORDS + [(50, 51)]), SR)
    (tmp_path/"talk.srt").write_text(srt(*THREE, (50, 51, "Far.")))
    path.write_bytes(path.read_bytes()[:path.stat().st_size//2])
    kept, quarantined = judged(load_subtitles(tmp_path))
    assert kept == ["talk.srt:2", "talk.srt:6", "talk.srt:10"] and quarantined == ["talk.srt:14 (begins after the end of the recording)"]


def test_samples_that_are_not_numbers_spoil_only_their_clip(tmp_path):
    wav = sound(8, WORDS); wav[int(3.5*SR)] = np.nan
    make(tmp_path); (tmp_path/"talk.flac").unlink()
    soundfile.write(tmp_path/"talk.wav", wav, SR, subtype="FLOAT")
    kept, quarantined = judged(load_subtitles(tmp_path))
    assert kept == ["talk.srt:2", "talk.srt:10"] and quarantined == ["talk.srt:6 (holds samples that are not numbers)"]


def test_ten_minutes_in_a_little_memory(tmp_path):
    with soundfile.SoundFile(tmp_path/"talk.wav", "w", 44_100, 2) as f:  # 211 MB when decoded
        ten = np.stack([sound(10, [(1, 4), (5, 8)], 44_100)]*2, 1)
        for _ in range(60): f.write(ten)
    (tmp_path/"talk.srt").write_text(srt(*((10*n + k, 10*n + k + 3, "Well.") for n in range(60) for k in (1, 5))))
    tracemalloc.start()
    corpus = load_subtitles(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(corpus) == 120 and all(corpus["audio"]) and peak < 30e6, peak


# --- the cache ---------------------------------------------------------------------------------------------------------

def test_the_second_time_nothing_is_decoded(tmp_path, monkeypatch):
    make(tmp_path/"a")
    first = load_subtitles(tmp_path/"a")
    decode = subtitles.read_sound
    monkeypatch.setattr(subtitles, "read_sound", None)  # nobody may call it
    assert load_subtitles(tmp_path/"a").to_list() == first.to_list()
    (tmp_path/"a"/"talk.srt").write_text(srt((1, 2, "JOHN: One!"), *THREE[1:]))  # other words, the same times
    assert load_subtitles(tmp_path/"a")["text"][0] == "One!"
    monkeypatch.setattr(subtitles, "read_sound", decode)
    os.unlink(first[1]["audio"]["path"])  # somebody tidied up
    assert judged(load_subtitles(tmp_path/"a"))[1] == []
    (tmp_path/"a"/"talk.srt").write_text(srt((1, 2.1, "One."), *THREE[1:]))
    assert load_subtitles(tmp_path/"a")["audio"][0]["path"] != first[0]["audio"]["path"]


def test_other_sound_of_the_same_name_is_cut_again(tmp_path):
    make(tmp_path)
    before = load_subtitles(tmp_path)[0]["audio"]["path"]
    soundfile.write(tmp_path/"talk.flac", sound(9, WORDS), SR)
    assert load_subtitles(tmp_path)[0]["audio"]["path"] != before


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, own_cache):
    make(tmp_path)
    write = Path.write_bytes
    def full(self, data):
        if self.name == "00001.flac": raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, data)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left.*WHISPER_TUTORIAL_CACHE"): load_subtitles(tmp_path)
    assert not list((own_cache/"subtitles").iterdir())
    monkeypatch.setattr(Path, "write_bytes", write)
    assert judged(load_subtitles(tmp_path))[1] == []


def test_several_at_once(tmp_path):
    make(tmp_path)
    with ThreadPoolExecutor(6) as pool: found = list(pool.map(lambda _: load_subtitles(tmp_path).to_list(), range(6)))
    assert all(rows == found[0] for rows in found) and all(os.path.exists(row["audio"]["path"]) for row in found[0])


# --- pairs -------------------------------------------------------------------------------------------------------------

def test_a_folder_of_all_sorts(tmp_path):
    make(tmp_path, "Title [dQw4w9WgXcQ]", code=".en-US.vtt", text="WEBVTT\n\n" + srt(*THREE).replace(",", "."))
    make(tmp_path/"test"/"deep", "talk.part.1")
    make(tmp_path, "alone", text=None)
    make(tmp_path, "twice"); make(tmp_path, "twice", suffix=".wav"); make(tmp_path, "twice", code=".vtt")
    (tmp_path/"lost.srt").write_text(srt(*THREE))
    (tmp_path/"notes.txt").write_text("nothing")
    (tmp_path/"gone.mp3").symlink_to(tmp_path/"nowhere.mp3"); (tmp_path/"gone.srt").write_text(srt(*THREE))
    corpus = load_corpus(f"subtitles:{tmp_path}")
    kept, quarantined = judged(corpus)
    assert len(kept) == 9 and set(quarantined) == {"gone.mp3", "alone.flac (no subtitles beside it)", "lost.srt (no recording beside it)",
                                                   "twice.wav (twice.flac is read)", "twice.srt (twice.vtt is read)"}
    table = corpus.to_pandas().set_index("id")
    assert table.recording["test/deep/talk.part.1.srt:2"] == "test/deep/talk.part.1.flac"
    assert table.split["test/deep/talk.part.1.srt:2"] == "test"
    assert table.language["Title [dQw4w9WgXcQ].en-US.vtt:4"] == "en"
    assert set(corpus["source"]) == {tmp_path.name} and set(corpus["confidence"]) == {None}


def test_two_languages_beside_one_recording(tmp_path):
    make(tmp_path, code=".de.vtt"); make(tmp_path, code=".en.vtt")
    with pytest.raises(UserError, match="talk.de.vtt, talk.en.vtt; only one is spoken.*give the path"): load_subtitles(tmp_path)
    assert set(load_subtitles(tmp_path/"talk.de.vtt")["language"]) == {"de"}
    (tmp_path/"talk.info.json").write_text(json.dumps({"language": "en-GB", "license": None}))
    corpus = load_subtitles(tmp_path)
    assert ids(corpus)[-1] == "talk.de.vtt (talk.en.vtt is read)" and corpus["language"][0] == "en" and corpus["licence"][0] is None
    assert ids(load_subtitles(tmp_path/"talk.flac")) == ids(corpus)


def test_names_of_the_system(tmp_path):
    "A name in another normal form, and capital suffixes."
    make(tmp_path, "cafe\u0301", code=".SRT")
    (tmp_path/"cafe\u0301.SRT").rename(tmp_path/"caf\u00e9.SRT")
    assert len(judged(load_subtitles(tmp_path))[0]) == 3
    assert len(load_subtitles(tmp_path/"cafe\u0301.flac")) == len(load_subtitles(tmp_path/"caf\u00e9.SRT")) == 3


def test_licence(tmp_path):
    make(tmp_path)
    (tmp_path/"talk.info.json").write_text(json.dumps({"license": "Creative Commons Attribution license (reuse allowed)"}))
    assert set(load_subtitles(tmp_path)["licence"]) == {"CC-BY-3.0"}
    (tmp_path/"talk.info.json").write_text('["list"]')
    with pytest.raises(UserError, match="remove it"): load_subtitles(tmp_path)


# --- words -------------------------------------------------------------------------------------------------------------

def test_nothing_said_or_not_written_is_not_a_clip(tmp_path):
    make(tmp_path, text=srt((1, 2, "[music]"), (3, 4, "What the [ __ ]?"), (5, 6, "&gt;&gt; MARY: <i>Hi</i>, {\\an8}[laughs] you.")))
    kept, quarantined, _ = check_corpus(load_subtitles(tmp_path))
    assert kept["text"][:] == ["Hi, you."] and kept["speaker"][:] == ["MARY"]
    assert quarantined["reason"][:] == ["empty transcript", "no transcript"]
    assert all(quarantined["audio"])  # their sound is there to be listened to


def test_several_voices_are_nobodys(tmp_path):
    make(tmp_path, text="WEBVTT\n\n" + srt((1, 2, "<v Anna>One\n<v Bo>and"), (2, 4, "<v Bo>two."), (5, 6, "<v Anna>Three.</v>")).replace(",", "."))
    corpus = load_subtitles(tmp_path)
    assert list(zip(corpus["text"], corpus["speaker"])) == [("One and", None), ("two.", "Bo"), ("Three.", "Anna")]
