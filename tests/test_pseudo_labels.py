"Recordings that nobody typed: cut in bounded memory, nothing lost, corrections kept, and the job from end to end."
import csv, json, os, shutil, tracemalloc
from pathlib import Path

import numpy as np, pandas as pd, pytest, soundfile
from conftest import make
from whisper_tutorial import UserError
from whisper_tutorial.data.corpus import load_corpus
from whisper_tutorial.evaluation.pseudo_labels import (account, as_corpus, cut_recordings, find_recordings, label,
                                                       read_blocks, read_review, settle, speech_pieces, write_review)
from whisper_tutorial.speech.audio import SR, load_audio

RNG = np.random.default_rng(0)


def noise(seconds, rate=SR): return .1*RNG.standard_normal(int(seconds*rate)).astype(np.float32)


def loud(wav):
    "A detector without a memory: regions above −40 dB, pauses under 0.3 s belong to them."
    on = np.sqrt(np.convolve(wav**2, np.ones(800, np.float32)/800, "same")) > 1e-2
    edges, joined = np.flatnonzero(np.diff(np.r_[0, on, 0].astype(int))).reshape(-1, 2)/SR, []
    for a, b in edges:
        if joined and a - joined[-1][1] < .3: joined[-1] = (joined[-1][0], b)
        else: joined.append((a, b))
    return joined


def test_an_hour_needs_no_more_memory_than_a_few_minutes(tmp_path):
    rate, second = 8_000, np.zeros(8_000, np.float32)
    with soundfile.SoundFile(tmp_path/"hour.wav", "w", rate, 2) as file:
        for n in range(720):  # 4 s of noise, 1 s of nothing; between 30 and 35 minutes nobody stops for breath
            part = np.concatenate([noise(4, rate), noise(1, rate) if 360 <= n < 420 else second])
            file.write(np.stack([part, part], axis=1))
    folder = tmp_path/"work"
    tracemalloc.start()
    row, = cut_recordings({"hour.wav": tmp_path/"hour.wav"}, folder, detect=loud)
    peak = tracemalloc.get_traced_memory()[1]; tracemalloc.stop()
    assert peak < 200e6, f"{peak/1e6:.0f} MB; the hour has {3600*SR*4/1e6:.0f} as floats"
    assert row["seconds"] == pytest.approx(3600, abs=.1) and row["reason"] is None
    starts, lengths = np.array([c[0] for c in row["clips"]]), np.array([c[1] for c in row["clips"]])
    assert lengths.max() <= 30 and (starts[1:] >= (starts + lengths)[:-1] - 1e-6).all()
    assert (lengths < 5).sum() >= 650  # those with pauses are cut at them
    inside = np.minimum(starts + lengths, 2100) - np.maximum(starts, 1800)
    assert inside[inside > 0].sum() == pytest.approx(300, abs=.2)  # nothing of the long one is lost
    assert lengths[inside > 0].min() > 5


@pytest.mark.parametrize("rate, channels, suffix", [(44_100, 2, ".flac"), (8_000, 1, ".wav"), (16_000, 1, ".ogg"), (22_050, 1, ".mp3")])
def test_blocks_are_the_whole(tmp_path, rate, channels, suffix):
    tone = .3*np.sin(np.cumsum(.1 + .05*np.sin(np.arange(5*rate)/rate)))
    path = tmp_path/f"a{suffix}"
    soundfile.write(path, np.stack([tone]*channels, axis=1), rate)
    np.testing.assert_array_equal(np.concatenate(list(read_blocks(path, .3))), load_audio(path))


def test_a_sound_at_the_end_of_a_block_is_neither_lost_nor_doubled(tmp_path):
    sound = np.concatenate([np.concatenate([noise(RNG.uniform(.3, 9)), np.zeros(int(RNG.uniform(.4, 2)*SR), np.float32)]) for _ in range(25)])
    soundfile.write(tmp_path/"a.wav", sound, SR, subtype="FLOAT")
    def pieces(block_s): return [(a, len(w)) for a, w in speech_pieces(read_blocks(tmp_path/"a.wav", block_s), 4, .3, loud)]
    whole = pieces(1000)
    for block_s in (.9, 3.3, 17): assert pieces(block_s) == whole


@pytest.fixture
def drawer(tmp_path):
    "Odd names and odd files."
    drawer = tmp_path/"tapes"
    speech = np.concatenate([noise(2), np.zeros(SR, np.float32), noise(1.5), np.zeros(SR, np.float32)])
    for n, name in enumerate(("a, b.wav", "ሰላም/日本 語.flac", "x/y/z/deep.ogg", "x/y/same.wav", "quote\"'s.wav", "train/t.wav")):
        (drawer/name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(drawer/name, np.concatenate([speech, noise(.5 + n/10)]), SR)
    (drawer/"empty.wav").touch()
    (drawer/"text.mp3").write_text("no sound")
    (drawer/"nan.wav").touch(); soundfile.write(drawer/"nan.wav", np.full(SR, np.nan, np.float32), SR, subtype="FLOAT")
    soundfile.write(drawer/"none.wav", np.zeros(0), SR)
    soundfile.write(drawer/"short.wav", np.zeros(100), SR)
    soundfile.write(drawer/"silent.flac", np.zeros(3*SR), SR)
    (drawer/"cut.flac").write_bytes((drawer/"ሰላም/日本 語.flac").read_bytes()[:40_000])
    (drawer/".hidden.wav").touch()
    return drawer


def test_every_recording_and_every_second_is_somewhere(drawer, tmp_path):
    found = find_recordings(drawer)
    assert len(found) == 13
    cuts = cut_recordings(found, tmp_path/"work", detect=loud)
    assert [row["recording"] for row in cuts] == list(found)
    reasons = {row["recording"]: row["reason"].split(":")[0] for row in cuts if row["reason"]}
    assert reasons == {"empty.wav": "empty file", "text.mp3": "cannot be decoded", "nan.wav": "samples that are not numbers",
                       "none.wav": "no samples", "short.wav": "no speech", "silent.flac": "no speech", "cut.flac": "cannot be decoded"}
    corpus = as_corpus(cuts, tmp_path/"work", "sw", "tapes")
    assert len(corpus) == 18 and set(corpus["split"]) == {None} and set(corpus["source"]) == {"tapes"}
    first = pd.DataFrame(dict(id=corpus["id"][:], text=["habari ya asubuhi"]*15 + ["", "na "*90, "na na na na na"],
                              language="sw", logprob=-.1, compression_ratio=[1.]*16 + [9., 1.]))
    table = label(corpus, first, first.assign(text=["habari ya asubuhi"]*17 + [""]))
    assert (table["confidence"].between(0, 1)).all() and table["reason"].notna().sum() == 3
    kept, aside = settle(corpus, table.assign(corrected=None), .5)
    assert len(kept) == 15 and sorted(r.split(":")[0] for r in aside["reason"]) == ["loop", "loop", "no words"]
    in_all = account(cuts, kept, aside)
    assert in_all.loc["in all", "recordings"] == 13 and in_all.loc["in all", "clips"] == 18
    assert in_all.loc["in all", "seconds"] == pytest.approx(sum(row["seconds"] or 0 for row in cuts), abs=.1)
    with pytest.raises(UserError, match="must be those of these recordings"): account(cuts, kept, aside.select([0]))
    sheet = write_review(tmp_path/"review", corpus, table, 99)
    assert sorted(sheet["file_name"]) == sorted(set(table[table["reason"].isna()]["file_name"]))  # one row per sound
    again = load_corpus(f"folder:{tmp_path/'review'}")
    assert set(again["recording"]) == set(sheet["recording"]) and set(again["split"]) == {None}


def test_an_interrupted_cutting_goes_on_and_ends_the_same(drawer, tmp_path):
    found, seen = find_recordings(drawer), []
    whole = cut_recordings(found, tmp_path/"whole", detect=loud)
    def until(wav):
        seen.append(len(wav))
        if len(seen) == 4: raise KeyboardInterrupt
        return loud(wav)
    with pytest.raises(KeyboardInterrupt): cut_recordings(found, tmp_path/"again", detect=until)
    assert cut_recordings(found, tmp_path/"again", detect=loud) == whole
    def sounds(name): return {p.name: p.read_bytes() for p in (tmp_path/name/"clips").iterdir()}
    assert sounds("again") == sounds("whole")  # whatever was half-written is gone
    calls = []
    def count(wav): calls.append(1); return loud(wav)
    assert cut_recordings(found, tmp_path/"again", detect=count) == whole
    unchanged = len(calls)
    soundfile.write(drawer/"a, b.wav", noise(1), SR)  # only what has changed is cut again
    cut_recordings(found, tmp_path/"again", detect=count)
    assert unchanged == 0 and len(calls) == 1
    assert len(cut_recordings(found, tmp_path/"again", max_s=1, detect=loud)[0]["clips"]) >= 1  # other settings: all again


def test_a_journal_cut_anywhere_goes_on(tmp_path):
    tapes = tmp_path/"tapes"
    tapes.mkdir()
    for name in ("a.wav", "ሰላም.wav"): soundfile.write(tapes/name, noise(1), SR)
    found, journal = find_recordings(tapes), tmp_path/"work"/"recordings.jsonl"
    cuts = cut_recordings(found, tmp_path/"work", detect=loud)
    whole = journal.read_bytes()
    begin = whole.index("ሰ".encode())
    for end in (begin + 1, begin + 2, begin + 3, len(whole) - 1, whole.index(b"\n"), 3, 0):
        journal.write_bytes(whole[:end])
        assert cut_recordings(found, tmp_path/"work", detect=loud) == cuts and journal.read_bytes() == whole, end


def test_what_cannot_be_opened_is_set_aside(tmp_path):
    tapes = tmp_path/"tapes"
    tapes.mkdir()
    soundfile.write(tapes/"a.wav", noise(1), SR)
    (tapes/"link.wav").symlink_to(tmp_path/"away.wav")
    found = find_recordings(tapes)
    assert list(found) == ["a.wav", "link.wav"]
    for _ in range(2):
        here, away = cut_recordings(found, tmp_path/"work", detect=loud)
        assert here["reason"] is None and away["reason"].startswith("file not found: ") and (away["clips"], away["sound"]) == ([], None)
    corpus = as_corpus([here, away], tmp_path/"work", "sw")
    table = label(corpus, first := pd.DataFrame(dict(id=corpus["id"][:], text="habari", language="sw", logprob=-.1, compression_ratio=1.)), first)
    in_all = account([here, away], *settle(corpus, table.assign(corrected=None), .5))
    assert in_all.loc["in all", "recordings"] == 2 and in_all.filter(like="file not found", axis=0)["recordings"].tolist() == [1]
    soundfile.write(tmp_path/"away.wav", noise(1), SR)  # the disk is there again
    assert len(cut_recordings(found, tmp_path/"work", detect=loud)[1]["clips"]) == 1


def test_a_correction_finds_its_clip_though_the_recording_was_renamed(drawer, tmp_path):
    def run():
        cuts = cut_recordings(find_recordings(drawer), tmp_path/"work", detect=loud)
        corpus = as_corpus(cuts, tmp_path/"work", "sw")
        first = pd.DataFrame(dict(id=corpus["id"][:], text="habari", language="sw", logprob=-.1, compression_ratio=1.))
        return corpus, label(corpus, first, first)
    corpus, table = run()
    write_review(tmp_path/"review", corpus, table, 5)
    path = tmp_path/"review"/"metadata.csv"
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows.loc[2, "transcription"] = 'habari, "bwana"\nsana'
    rows.to_csv(path, index=False)
    recording = drawer/rows.loc[2, "recording"]
    recording.rename(recording.with_name("renamed" + recording.suffix))
    corpus, table = run()
    write_review(tmp_path/"review", corpus, table, 5, seed=7)
    sheet = read_review(tmp_path/"review")
    assert sheet[sheet["checked"]]["transcription"].tolist() == ['habari, "bwana"\nsana']
    assert "renamed" in sheet[sheet["checked"]]["recording"].item()
    path.write_text(path.read_text().replace(",", ";"))
    before = path.read_bytes()
    with pytest.raises(UserError, match="commas between the columns"): write_review(tmp_path/"review", corpus, table, 5)
    assert path.read_bytes() == before  # what cannot be read is not overwritten


def test_real_speech_is_cut_between_sentences(tmp_path):
    home = os.environ.get("WHISPER_TUTORIAL_SPEECH")
    if not home: pytest.skip("set WHISPER_TUTORIAL_SPEECH to a folder of real speech")
    with open(Path(home)/"metadata.csv", encoding="utf-8") as file: rows = list(csv.DictReader(file))
    wavs = [load_audio(str(Path(home)/r["file_name"])) for r in rows if r["corpus"] == "swahili"][:12]
    hush = 1e-4*RNG.standard_normal(2*SR).astype(np.float32)
    tape = np.concatenate([part for wav in wavs for part in (hush, wav)])
    soundfile.write(tmp_path/"tape.flac", tape, SR)
    row, = cut_recordings({"tape.flac": tmp_path/"tape.flac"}, tmp_path/"work", max_s=10)
    speech = sum(len(w) for w in wavs)/SR
    lengths = np.array([c[1] for c in row["clips"]])
    assert lengths.max() <= 10 and .7*speech < lengths.sum() <= speech + .4*len(lengths)
    ends = np.cumsum([len(p) for wav in wavs for p in (hush, wav)])/SR
    for a, s, _ in row["clips"]:  # no clip goes over the two seconds between two of them
        assert not any(a < end - .3 and a + s > end + 2.3 for end in ends[1::2])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "The job on two recordings of embedded clips, twice: the second time with a corrected sheet."
    top = tmp_path_factory.mktemp("pseudo")
    corpus = load_corpus("common_voice:data/accents")
    rows, hush = [corpus[int(i)] for i in np.random.default_rng(3).permutation(len(corpus))[:22]], np.zeros(int(1.3*SR), np.float32)
    said = {}
    for name, some in {"a, 1.flac": rows[:16], "b/ü.wav": rows[16:]}.items():
        (top/"tapes"/name).parent.mkdir(parents=True, exist_ok=True)
        wavs = [load_audio(r["audio"]) for r in some]
        starts = np.cumsum([0] + [len(w) + len(hush) for w in wavs])[:-1] + len(hush)
        soundfile.write(top/"tapes"/name, np.concatenate([p for w in wavs for p in (hush, w)]), SR)
        said[name] = [(start/SR, r["text"]) for start, r in zip(starts, some)]
    (top/"tapes"/"broken.mp3").write_text("x")
    def job(args=""): return make("run", JOB="pseudo_label", NAME=top/"run", OUT=top/"run",
                                  ARGS=f"-p recordings '{top}/tapes' -p second data/nano -p max_wer 0.9 {args}")
    first = job()
    state = dict(first=first, guess=json.loads((top/"run"/"manifest.json").read_text()) if first.returncode == 0 else None)
    path = top/"run"/"review"/"metadata.csv"
    if path.exists():
        sheet = pd.read_csv(path, dtype=str, keep_default_na=False)
        for i, row in sheet.iterrows():
            sheet.loc[i, "transcription"] = min(said[row["recording"]], key=lambda s: abs(s[0] - float(row["start_s"])))[1]
        sheet.assign(checked="x").to_csv(path, index=False)
        shutil.copy(path, top/"corrected.csv")
    return state | dict(top=top, out=top/"run", job=job, second=job(), said=said)


def test_the_job_labels_and_says_what_to_do(run):
    assert run["first"].returncode == 0, run["first"].text
    assert "is a guess" in run["guess"]["sentence"] and run["guess"]["clips"]["recordings"] == 3
    assert "-p data folder:" in run["first"].text and "/labelled" in run["first"].text


def test_a_corrected_sheet_chooses_the_threshold(run):
    assert run["second"].returncode == 0, run["second"].text
    now = json.loads((run["out"]/"manifest.json").read_text())
    assert now["sentence"].startswith("Keep ") and now["clips"]["checked"] >= 20 and now["finished"]
    assert now["seconds"]["decode"] < run["guess"]["seconds"]["decode"]/2  # nothing was decoded twice
    assert (pd.read_csv(run["out"]/"review"/"metadata.csv")["transcription"].tolist()
            == pd.read_csv(run["top"]/"corrected.csv")["transcription"].tolist())
    labelled = load_corpus(f"folder:{run['out']/'labelled'}")
    texts = {text for some in run["said"].values() for _, text in some}
    assert len(labelled) == now["clips"]["kept"] and set(labelled["text"]) <= texts and set(labelled["confidence"]) == {1.}
    with open(run["out"]/"quarantine.csv", encoding="utf-8") as file: aside = list(csv.DictReader(file))
    assert len(aside) + len(labelled) == now["clips"]["clips"] + 1 and "broken.mp3" in [row["id"] for row in aside]


def test_the_job_refuses_before_it_writes(run):
    done = run["job"](f"-p out_dir {run['top']}/no -p threshold 1.5")
    assert done.returncode != 0 and "UserError: `threshold` is 1.5" in done.text
    assert not (run["top"]/"no").exists()
