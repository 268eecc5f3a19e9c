"Corpora as people bring them: real speech where it is at hand, and files that are broken in ways no chapter shows."
import os
from pathlib import Path

import numpy as np, pytest, soundfile
from whisper_tutorial import UserError
from whisper_tutorial.data.checks import check_corpus, count_reasons
from whisper_tutorial.data.corpus import FEATURES, fingerprint, load_corpus, make_corpus, select, split_corpus

SPEECH = os.environ.get("WHISPER_TUTORIAL_SPEECH")
real_speech = pytest.mark.skipif(not SPEECH, reason="WHISPER_TUTORIAL_SPEECH names no folder of real speech")


@pytest.fixture(scope="module")
def speech(): return load_corpus(f"folder:{SPEECH}")


@real_speech
def test_all_clips_are_loaded_with_their_labels(speech):
    assert len(speech) == 2426 and speech.features == FEATURES
    table = speech.remove_columns("audio").to_pandas()
    assert table.source.value_counts().to_dict() == {"fsdd": 2000, "speechocean762": 383, "swahili": 35, "en_fixtures": 8}
    assert set(table.language) == {"en", "sw"} and set(table.split) == {"train", "validation", "test"}
    assert table.text.notna().all() and table.age.dropna().str.fullmatch(r"\d+").all()


@real_speech
def test_clips_and_words_belong_together(speech):
    fsdd = select(speech, {"source": "fsdd"})
    digits = "zero one two three four five six seven eight nine".split()
    for name, text in zip(fsdd["id"], fsdd["text"]): assert digits[int(Path(name).name[0])] == text.lower()


@real_speech
def test_two_clips_are_over_the_window(speech):
    kept, quarantined, warnings = check_corpus(speech)
    assert len(kept) == 2424 and count_reasons(quarantined).values.tolist()[0][:2] == ["longer than the window", 2]
    assert "speaker in two splits" in warnings.check.tolist()  # fsdd and Swahili, as their makers say


@real_speech
def test_splits_follow_the_rule(speech):
    fsdd, notes = split_corpus(select(speech, {"source": "fsdd"}), seed=0)
    assert {k: len(v) for k, v in fsdd.items()} == {"train": 1620, "validation": 180, "test": 200} and "by clip" in notes[0]
    ocean, notes = split_corpus(select(speech, {"source": "speechocean762"}), seed=0)
    assert {k: len(v) for k, v in ocean.items()} == {"train": 268, "validation": 52, "test": 63} and not notes


@real_speech
def test_fingerprint_is_of_the_data_alone(speech):
    some = speech.select(range(0, 2426, 10))
    assert fingerprint(some) == fingerprint(some.select(range(len(some))[::-1]))


def test_broken_files_are_quarantined(tmp_path):
    "Half an MP3, noise with the name of each format, a folder with the name of a clip: none may end the check."
    rng = np.random.default_rng(0)
    tone = .1*np.sin(np.arange(3*16_000)/10)
    soundfile.write(tmp_path/"good.mp3", tone, 16_000)
    (tmp_path/"half.mp3").write_bytes((tmp_path/"good.mp3").read_bytes()[:5000])
    for suffix in ("wav", "mp3", "flac", "ogg", "m4a"): (tmp_path/f"noise.{suffix}").write_bytes(rng.bytes(3000))
    soundfile.write(tmp_path/"header.flac", tone, 16_000)
    (tmp_path/"header.flac").write_bytes((tmp_path/"header.flac").read_bytes()[:60])
    (tmp_path/"folder.wav").mkdir()
    names = sorted(p.name for p in tmp_path.iterdir())
    corpus = make_corpus([dict(id=n, audio=tmp_path/n, text="Hello.") for n in names], "broken")
    kept, quarantined, _ = check_corpus(corpus)
    assert len(kept) + len(quarantined) == len(names)
    assert "good.mp3" in kept["id"][:] and {"header.flac", "folder.wav"} <= set(quarantined["id"])
    assert set(count_reasons(quarantined).reason) <= {"cannot be decoded", "no samples", "file not found"}


def test_bytes_are_as_good_as_paths(tmp_path):
    soundfile.write(tmp_path/"a.flac", np.zeros(16_000), 16_000)
    data = (tmp_path/"a.flac").read_bytes()
    by_path = make_corpus([dict(id="a", audio=tmp_path/"a.flac", text="Hello.")], "toy")
    by_bytes = make_corpus([dict(id="a", audio=data, text="Hello.")], "toy")
    assert by_bytes["duration_s"][:] == [1.0] and fingerprint(by_bytes) == fingerprint(by_path)
    assert len(check_corpus(by_bytes)[0]) == 1


@pytest.mark.parametrize("source", ["folder:no/such/folder", "folder:", "nonsense", "common_voice:nbs", "folder:nbs/recipes"])
def test_a_source_that_is_none(source):
    with pytest.raises(UserError): load_corpus(source)
