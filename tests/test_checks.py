"The checks on real speech and on mixtures of faults: what they find is there, and nothing is lost."
import io, os

import numpy as np, pandas as pd, pytest, soundfile
from hypothesis import HealthCheck, given, settings, strategies as st

from transformers.models.whisper.tokenization_whisper import LANGUAGES

from whisper_tutorial import UserError
from whisper_tutorial.data import checks
from whisper_tutorial.data.checks import CHECKS, check_corpus, check_splits, count_reasons
from whisper_tutorial.data.corpus import load_corpus, make_corpus, select, split_corpus, with_column
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


@real
def test_all_of_real_speech_is_accounted_for():
    corpus = load_corpus(f"folder:{SPEECH}")
    kept, quarantined, warnings = check_corpus(corpus)
    assert sorted([*kept["id"], *quarantined["id"]]) == sorted(corpus["id"]) and len(quarantined) == 2
    found = warnings.set_index("check")
    assert found.clips["upper case"] == 390 and found.clips["lower case"] == 2001 and found.clips["sentence in two splits"] == 1800
    assert "8000 Hz (2000), 16000 Hz (421)" in found.seen["narrow band"] and "text_style" in found.remedy["upper case"]
    wrong = {"silent", "clipped", "duplicate audio", "wrong language", "unexpected script", "tokens per character", "not the stated duration"}
    assert not wrong & set(warnings.check)
    for ids in warnings.examples: assert 0 < len(ids) <= 5 and set(ids) <= set(kept["id"])


def test_threads_and_processes_hear_the_same(monkeypatch):
    corpus = load_corpus("common_voice:data/accents").select(range(60))
    corpus = with_column(corpus, "audio", [None, *corpus["audio"][1:]])
    sounds, faults = checks.hear(corpus)
    monkeypatch.setattr(checks, "MANY", 1)
    again, same = checks.hear(corpus)
    assert sounds.equals(again) and faults == same == ["no audio"] + [None]*59


def test_every_script_of_a_whisper_language_is_known():
    for code in LANGUAGES: assert checks.scripts_of(code)
    for codes in checks.SCRIPTS.values(): assert set(codes.split()) <= set(LANGUAGES)


@given(st.lists(st.floats(.1, 60), min_size=20, max_size=200), st.floats(.2, 5))
def test_the_usual_rates_hold_the_median(rates, factor):
    low, high = checks.usual_rates(pd.Series(rates))
    assert checks.RATES[0] <= low <= high <= checks.RATES[1]
    assert low <= np.clip(np.median(rates), *checks.RATES)*1.0001 and np.clip(np.median(rates), *checks.RATES) <= high*1.0001


@pytest.mark.parametrize("language, text, check", [
    ("ka", "სად არის დედაჩემის სახლი?", "tokens per character"), ("am", "የእናቴ ቤት የት ነው?", "tokens per character"),
    ("hi", "Mera ghar kahan hai?", "wrong language"), ("ru", "Privet, mir!", "wrong language"),
    ("zh", "我妈妈的房子在哪里？", None), ("ja", "母の家はどこですか？", None), ("ko", "우리 집은 어디?", None), ("th", "บ้านแม่ของฉันอยู่ที่ไหน", None),
    ("hi", "मेरी माँ का घर कहाँ है?", None), ("sr", "Gde je kuća?", None), ("sr", "Где је кућа?", None), ("ary", "فين كاينة دار ماما؟", None),
    (None, "Where is it?", None), ("en", "1984!", None)])
def test_scripts_and_tokens(language, text, check):
    rng = np.random.default_rng(0)
    rows = [dict(id=str(n), audio=flac(rng.normal(0, .1, SR*2)), text=text, language=language) for n in range(3)]
    assert list(check_corpus(make_corpus(rows, "some"))[2].check) == ([check] if check else [])


def flac(wav):
    file = io.BytesIO()
    soundfile.write(file, wav, SR, format="FLAC")
    return file.getvalue()


BAD = ("nan", "missing", "no text", "empty text", "long", "wordy", "nothing", "page")
ODD = ("silent", "clipped", "too short", "upper case", "no punctuation", "not the stated duration", "wrong language")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(faults=st.lists(st.sampled_from(("good", *BAD, *ODD)), min_size=1, max_size=12), quarantine=st.sets(st.sampled_from(ODD)),
       stated=st.sampled_from([9., 0., -1., float("inf")]))
def test_kept_and_quarantined_are_all(tmp_path, faults, quarantine, stated):
    rows, rng = [], np.random.default_rng(0)
    for n, fault in enumerate(faults):
        wav = rng.normal(0, .1, SR//2).astype(np.float32)  # each its own, so that none is a duplicate
        if fault == "silent": wav *= 1e-4
        if fault == "clipped": wav = np.clip(20*wav, -1, 1)
        if fault == "too short": wav = wav[:SR//10]
        if fault == "nan": wav[7] = np.nan
        if fault == "nothing": wav = wav[:0]
        if fault == "long": wav = np.tile(wav, 3)
        path = tmp_path/f"{n}.wav"
        path.unlink(missing_ok=True)
        if fault == "page": path.write_text("<html>404 Not Found</html>")
        elif fault != "missing": soundfile.write(path, wav, SR, subtype="FLOAT")
        text = {"no text": None, "empty text": " ", "wordy": "word "*450, "upper case": "GOOD.", "no punctuation": "Good",
                "too short": "A.", "wrong language": "Да, да."}.get(fault, "Good.")
        rows.append(dict(id=str(n), audio=path, text=text, language="en",
                         duration_s=stated if fault == "not the stated duration" else None))
    kept, quarantined, warnings = check_corpus(make_corpus(rows, "faults"), window_s=1., quarantine=quarantine)
    assert sorted([*kept["id"], *quarantined["id"]]) == sorted(row["id"] for row in rows) and all(quarantined["reason"])
    assert kept["id"][:] == [str(n) for n, fault in enumerate(faults) if fault not in {*BAD, *quarantine}]
    clips = dict(zip(warnings.check, warnings.clips))
    for odd in ODD: assert clips.get(odd, 0) == (0 if odd in quarantine else faults.count(odd)), odd
    assert all(s > 0 for s in kept["duration_s"]) and list(clips) == [name for name in CHECKS if name in clips]


def test_a_split_that_leaks_fails():
    rows = [dict(id=f"{s}{n}", text="…", speaker=f"voice{n}", split=s) for s in ("train", "test") for n in range(3)]
    with pytest.raises(UserError, match="3 of 3 speakers are in more than one split, such as 'voice0'"):
        check_splits(make_corpus(rows, "leaky"))
    people = make_corpus([dict(id=f"{n}-{k}", text="…", speaker=f"voice{n}") for n in range(40) for k in range(3)], "people")
    assert check_splits(split_corpus(people, 0)[0]).speaker.sum() == 40
