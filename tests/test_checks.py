"The checks on real speech and on mixtures of faults: what they find is there, and nothing is lost."
import os

import numpy as np, pytest, soundfile
from hypothesis import HealthCheck, given, settings, strategies as st

from whisper_tutorial import UserError
from whisper_tutorial.data.checks import CHECKS, check_corpus, check_splits, count_reasons
from whisper_tutorial.data.corpus import load_corpus, make_corpus, select, split_corpus
from whisper_tutorial.speech.audio import SR

SPEECH = os.environ.get("WHISPER_TUTORIAL_SPEECH")
real = pytest.mark.skipif(not SPEECH, reason="WHISPER_TUTORIAL_SPEECH is not set")


def found(source, **options):
    corpus = select(load_corpus(f"folder:{SPEECH}"), {"source": source})
    kept, quarantined, warnings = check_corpus(corpus, **options)
    assert len(kept) + len(quarantined) == len(corpus)
    return kept, quarantined, dict(zip(warnings.check, warnings.clips))


@real
def test_digits_share_their_speakers_and_come_from_a_telephone():
    kept, quarantined, clips = found("fsdd")
    assert len(quarantined) == 0
    assert clips["narrow band"] == clips["lower case"] == 2000 and clips["speaker in two splits"] == 1800
    with pytest.raises(UserError, match="4 of 4 speakers are in more than one split"): check_splits(kept)


@real
def test_read_english_has_lost_its_case_and_its_commas():
    kept, _, clips = found("speechocean762")
    assert clips["upper case"] == clips["no punctuation"] == len(kept) == 383
    assert "speaker in two splits" not in clips and check_splits(kept).speaker.sum() == len(set(kept["speaker"]))


@real
def test_long_clips_are_set_aside():
    _, quarantined, clips = found("swahili")
    assert count_reasons(quarantined).values.tolist()[0][:2] == ["longer than the window", 2]
    assert "no punctuation" not in clips and "unexpected script" not in clips


@real
def test_a_warning_becomes_a_reason():
    kept, quarantined, clips = found("fsdd", quarantine=["too short", "speaker in two splits"])
    reasons = dict(count_reasons(quarantined).values[:, :2].tolist())
    assert reasons["too short"] == 39 and reasons["speaker in two splits"] > 1500
    assert "speaker in two splits" not in clips and set(kept["split"]) == {"test"}


def test_a_check_that_does_not_exist():
    with pytest.raises(UserError, match="Did you mean `silent`"): check_corpus(make_corpus([], "none"), quarantine=["silnt"])
    assert all(CHECKS.values())  # each says what to do


FAULTS = ("good", "silent", "nan", "missing", "no text", "empty text", "long", "wordy", "nothing")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(FAULTS), min_size=1, max_size=12))
def test_kept_and_quarantined_are_all(tmp_path, faults):
    rows = []
    for n, fault in enumerate(faults):
        wav = np.sin(np.arange(SR//2)/10).astype(np.float32)*.3
        if fault == "silent": wav *= 0
        if fault == "nan": wav[7] = np.nan
        if fault == "nothing": wav = wav[:0]
        if fault == "long": wav = np.tile(wav, 3)
        path = tmp_path/f"{n}.wav"
        if fault == "missing": path.unlink(missing_ok=True)
        else: soundfile.write(path, wav, SR, subtype="FLOAT")
        text = {"no text": None, "empty text": " ", "wordy": "word "*450}.get(fault, "Good.")
        rows.append(dict(id=str(n), audio=path, text=text, language="en"))
    kept, quarantined, warnings = check_corpus(make_corpus(rows, "faults"), window_s=1.)
    assert sorted([*kept["id"], *quarantined["id"]]) == sorted(row["id"] for row in rows)
    assert [faults[int(i)] for i in sorted(kept["id"], key=int)] == [f for f in faults if f in ("good", "silent")]
    assert dict(zip(warnings.check, warnings.clips)).get("silent", 0) == faults.count("silent")


def test_a_split_that_leaks_fails():
    rows = [dict(id=f"{s}{n}", text="…", speaker=f"voice{n}", split=s) for s in ("train", "test") for n in range(3)]
    with pytest.raises(UserError, match="3 of 3 speakers are in more than one split, such as 'voice0'"):
        check_splits(make_corpus(rows, "leaky"))
    people = make_corpus([dict(id=f"{n}-{k}", text="…", speaker=f"voice{n}") for n in range(40) for k in range(3)], "people")
    assert check_splits(split_corpus(people, 0)[0]).speaker.sum() == 40
