"Datasets of the hub: folders in the form of each known one, and a local server that answers as the hub does."
import errno, gc, hashlib, io, json, os, pickle, subprocess, sys, tarfile, threading, tracemalloc, urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import datasets, numpy as np, pyarrow as pa, pyarrow.parquet as pq, pytest, soundfile
from datasets import Audio, ClassLabel, Features, Value
from whisper_tutorial import UserError
from whisper_tutorial.data.checks import check_corpus, count_reasons
from whisper_tutorial.data.corpus import FEATURES, fingerprint, load_corpus
from whisper_tutorial.data.hub import CONVERTED, MAPS, load_hub

TOKEN = "hf_NobodyMaySeeThis"
STRING, INT, FLOAT = Value("string"), Value("int64"), Value("float64")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch): monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path/"cache")


def wav(seconds, rate=16_000, format="WAV"):
    file = io.BytesIO()
    soundfile.write(file, .1*np.sin(np.arange(round(seconds*rate))/10), rate, format=format)
    return file.getvalue()


def parquet(rows, features, row_group=100):
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=Features(features).arrow_schema), file, row_group_size=row_group)
    return file.getvalue()


def write(folder, **splits):
    folder.mkdir(parents=True, exist_ok=True)
    for split, data in splits.items(): (folder/f"{split.replace('__', '.')}-00000-of-00001.parquet").write_bytes(data)
    return folder


def both(name, **options):
    "Load a dataset in both ways, which must give the same rows, and hand over those."
    mapped, stream = load_hub(name, **options), load_hub(name, streaming=True, **options)
    assert mapped.features == stream.features == FEATURES
    rows = list(mapped)
    assert rows == list(stream)
    return rows


def sound(seconds): return {"bytes": wav(seconds), "path": f"{seconds}.wav"}


SAYS = dict(id=STRING, file=STRING, text=STRING, audio=Audio(sampling_rate=16_000))
COMMON_VOICE = dict(client_id=STRING, path=STRING, audio=Audio(sampling_rate=48_000), sentence=STRING, up_votes=INT, down_votes=INT,
                    age=STRING, gender=STRING, accent=STRING, locale=STRING, segment=STRING, variant=STRING)
AFRISPEECH = dict(speaker_id=STRING, path=STRING, audio_id=STRING, audio=Audio(sampling_rate=44_100), transcript=STRING, age_group=STRING,
                  gender=STRING, accent=STRING, domain=STRING, country=STRING, duration=FLOAT)
REAL = {  # dataset → the columns of the real one, a row (after their cards and scripts), and what a clip must say
    "tobiolatunji/afrispeech-200": (AFRISPEECH, dict(
        speaker_id="b545", path="/data/x/5dcb.wav", audio_id="aad9/5dcb", transcript="His mother is in her 50 s and has hypertension .",
        age_group="26-40", gender="Male", accent="yoruba", domain="clinical", country="US", duration=3.25),
        dict(id="aad9/5dcb", text="His mother is in her 50 s and has hypertension .", duration_s=3.25, speaker="b545", gender="Male",
             age="26-40", accent="yoruba", language="en", licence="CC-BY-NC-SA-4.0")),
    "google/fleurs": (dict(
        id=Value("int32"), num_samples=Value("int32"), path=STRING, audio=Audio(sampling_rate=16_000), transcription=STRING,
        raw_transcription=STRING, gender=ClassLabel(names=["male", "female", "other"]), lang_id=ClassLabel(names=["ceb_ph", "cmn_hans_cn"]),
        language=STRING, lang_group_id=ClassLabel(names=["western_european_we", "cjk"])),
        dict(id=1, num_samples=24_000, path="/home/x/dev/100.wav", transcription="ni hao", raw_transcription="Ni hao!", gender=1, lang_id=1,
             language="Mandarin Chinese", lang_group_id=1),
        dict(id="100", text="Ni hao!", duration_s=1.5, gender="female", language="zh", speaker=None, licence="CC-BY-4.0")),
    "speechcolab/gigaspeech": (dict(
        segment_id=STRING, speaker=STRING, text=STRING, audio=Audio(sampling_rate=16_000), begin_time=Value("float32"),
        end_time=Value("float32"), audio_id=STRING, title=STRING, url=STRING, source=ClassLabel(names=["audiobook", "podcast", "youtube"]),
        category=ClassLabel(names=["People and Blogs"]), original_full_path=STRING),
        dict(segment_id="YOU1_S2", speaker="N/A", text="AS THEY'RE LEAVING <COMMA> CAN KASH <QUESTIONMARK>", begin_time=2941.5, end_time=2943.,
             audio_id="YOU1", title="?", url="https://", source=2, category=0, original_full_path="audio/youtube/YOU1.opus"),
        dict(id="YOU1_S2", text="AS THEY'RE LEAVING, CAN KASH?", speaker=None, recording="YOU1", start_s=2941.5, language="en",
             licence="Apache-2.0")),
    "openslr/librispeech_asr": (SAYS | dict(speaker_id=INT, chapter_id=INT), dict(
        id="103-1240-0000", file="103-1240-0000.flac", text="CHAPTER ONE", speaker_id=103, chapter_id=1240),
        dict(id="103-1240-0000", text="CHAPTER ONE", speaker="103", recording="1240", start_s=None, language="en", licence="CC-BY-4.0")),
    "facebook/voxpopuli": (dict(
        audio_id=STRING, language=ClassLabel(names=["en", "hr", "en_accented"]), audio=Audio(sampling_rate=16_000), raw_text=STRING,
        normalized_text=STRING, gender=STRING, speaker_id=STRING, is_gold_transcript=Value("bool"), accent=STRING),
        dict(audio_id="2018-hr_5", language=1, raw_text="", normalized_text="poast genitalnog", gender="female", speaker_id="119431",
             is_gold_transcript=True, accent="None"),
        dict(id="2018-hr_5", text="poast genitalnog", gender="female", speaker="119431", accent=None, language="hr", licence="CC0-1.0")),
    "LIUM/tedlium": (SAYS | dict(speaker_id=STRING, gender=ClassLabel(names=["unknown", "female", "male"])), dict(
        id="AlGore-1", file="AlGore.sph", text="and it 's <unk> a great honor", speaker_id="Al_Gore", gender=0),
        dict(id="AlGore-1", text="and it's a great honor", speaker="Al_Gore", gender=None, language="en", licence="CC-BY-NC-ND-3.0")),
    "edinburghcstr/ami": (dict(
        meeting_id=STRING, audio_id=STRING, text=STRING, audio=Audio(sampling_rate=16_000), begin_time=Value("float32"),
        end_time=Value("float32"), microphone_id=STRING, speaker_id=STRING),
        dict(meeting_id="EN2001a", audio_id="AMI_EN2001a_H00_MEE068_0000557", text="OKAY", begin_time=5.5, end_time=6., microphone_id="H00",
             speaker_id="MEE068"),
        dict(id="AMI_EN2001a_H00_MEE068_0000557", text="OKAY", speaker="MEE068", recording="EN2001a", start_s=5.5, language="en")),
    "facebook/multilingual_librispeech": (dict(
        audio=Audio(), original_path=STRING, begin_time=FLOAT, end_time=FLOAT, transcript=STRING, audio_duration=FLOAT, speaker_id=STRING,
        chapter_id=STRING, file=STRING, id=STRING),
        dict(original_path="http://x/y.mp3", begin_time=20.25, end_time=40., transcript="więc czego", audio_duration=19.75, speaker_id="10900",
             chapter_id="6473", file="10900_6473_000030.flac", id="10900_6473_000030"),
        dict(id="10900_6473_000030", text="więc czego", duration_s=19.75, speaker="10900", recording="http://x/y.mp3", start_s=20.25)),
    "edinburghcstr/edacc": (dict(speaker=STRING, text=STRING, accent=STRING, raw_accent=STRING, gender=STRING, l1=STRING, audio=Audio()), dict(
        speaker="EDACC-C06-A", text="yeah <laugh> right <overlap>", accent="Irish English", raw_accent="irish", gender="male", l1="English"),
        dict(id="{split}/0", text="yeah right", speaker="EDACC-C06-A", accent="Irish English", gender="male", licence="CC-BY-SA")),
    "fsicoli/common_voice_22_0": (COMMON_VOICE, dict(
        client_id="v1", path="sw_train_0/common_voice_sw_1.mp3", sentence='"Ng\'ombe', up_votes=2, down_votes=0, age="", gender="male_masculine",
        accent="", locale="sw", segment="", variant=""),
        dict(id="common_voice_sw_1", text='"Ng\'ombe', speaker="v1", age=None, gender="male_masculine", accent=None, language="sw",
             licence="CC0-1.0"))}


@pytest.mark.parametrize("id", REAL)
def test_ready_maps(id, tmp_path):
    features, row, expected = REAL[id]
    folder = write(tmp_path/id, test=parquet([row | {"audio": sound(1.5)}], features))
    clip, = both(folder)
    assert {k: clip[k] for k in expected} == expected | ({"id": "test/0"} if "{split}" in expected.get("id", "") else {})
    assert clip["split"] == "test" and clip["source"] == id and clip["audio"] == sound(1.5)
    assert clip["duration_s"] == expected.get("duration_s", 1.5)


def test_every_map_is_tested_and_names_columns_of_ours():
    for pattern, known in MAPS.items():
        assert any(id.startswith(pattern.rstrip("*")) for id in [*REAL, "intronhealth/afrispeech-200"])
        assert set(known) <= {*FEATURES, "tags", "unknown", "per_second", "aside"} and known["licence"].startswith("=")


def test_language_of_mls_is_its_configuration(tmp_path):
    features, row, _ = REAL["facebook/multilingual_librispeech"]
    folder = write(tmp_path/"facebook"/"multilingual_librispeech", dev=parquet([row | {"audio": sound(1)}], features))
    (folder/"README.md").write_text("---\nconfigs:\n- config_name: polish\n  data_files:\n  - {split: dev, path: dev-*}\n"
                                    "  - {split: 9_hours, path: dev-*}\n---\n")
    clip, = both(f"{folder}:polish")  # `9_hours` only repeats others
    assert (clip["language"], clip["split"]) == ("pl", "validation")


def test_splits_with_names_of_their_own(tmp_path, capsys):
    features, row, _ = REAL["openslr/librispeech_asr"]
    folder, names = tmp_path/"openslr"/"librispeech_asr", ["train.clean.100", "validation.other", "test.clean", "extra"]
    for n, split in enumerate(names):
        (write(folder, x=b"")/f"{n}.parquet").write_bytes(parquet([row | {"audio": sound(.1), "id": f"{n}"}], features))
    (folder/"x-00000-of-00001.parquet").unlink()
    lines = "".join(f"  - {{split: {split}, path: {n}.parquet}}\n" for n, split in enumerate(names))
    (folder/"README.md").write_text(f"---\nconfigs:\n- config_name: all\n  data_files:\n{lines}---\n")
    assert [clip["split"] for clip in both(folder)] == ["train", "validation", "test", None]
    assert "the clips of extra have no split" in capsys.readouterr().out


def test_unapproved_clips_of_common_voice_are_set_aside(tmp_path, capsys):
    features, row, _ = REAL["fsicoli/common_voice_22_0"]
    data = {n: parquet([row | {"audio": sound(.1), "path": f"{n}.mp3"}], features) for n in range(3)}
    folder = tmp_path/"fsicoli"/"common_voice_22_0"
    for n, split in enumerate(("train", "validated", "invalidated")):
        (folder/split).mkdir(parents=True)
        (folder/split/"0000.parquet").write_bytes(data[n])
    lines = "".join(f"  - {{split: {split}, path: {split}/*}}\n" for split in ("train", "validated", "invalidated"))
    (folder/"README.md").write_text(f"---\nconfigs:\n- config_name: sw\n  data_files:\n{lines}---\n")
    assert [clip["id"] for clip in both(f"{folder}:sw")] == ["0"]
    assert "validated, invalidated set aside" in capsys.readouterr().out


def test_nothing_is_lost_and_bytes_are_kept(tmp_path):
    "Missing sound, sound that is none, no words: the rows stay, and the checks quarantine them."
    features = dict(audio=Audio(), text=STRING)
    clips = [sound(1), None, {"bytes": b"<html>404</html>", "path": "a.wav"}, {"bytes": b"", "path": None},
             {"bytes": wav(2, 44_100, "FLAC"), "path": None}, {"bytes": wav(1, format="MP3"), "path": "wrong.flac"}]
    rows = [dict(audio=clip, text=text) for clip, text in zip(clips, ["One.", "Two.", "Three.", "Four.", None, "Six."])]
    folder = write(tmp_path/"mixed", train=parquet(rows, features, row_group=2))
    loaded = both(folder)
    assert [clip["audio"] for clip in loaded] == clips
    assert [clip["duration_s"] and round(clip["duration_s"], 1) for clip in loaded] == [1, None, None, None, 2, 1]
    kept, quarantined, _ = check_corpus(load_hub(folder))
    assert kept["id"][:] == ["train/0", "train/5"] and len(quarantined) == 4
    assert {"no transcript", "cannot be decoded"} <= set(count_reasons(quarantined).reason)


def test_parquet_of_other_programs(tmp_path):
    "No notes of datasets in it, large types, columns in another order: as pandas and polars write."
    kind = pa.struct([("path", pa.large_string()), ("bytes", pa.large_binary())])
    table = pa.table({"sentence": pa.array(["a", "b"], pa.large_string()), "speaker_id": [1., None],
                      "audio": pa.array([{"bytes": wav(.5), "path": None}]*2, kind)})
    (tmp_path/"pandas").mkdir()
    pq.write_table(table, tmp_path/"pandas"/"clips.parquet")
    assert [(c["text"], c["speaker"], c["duration_s"]) for c in both(tmp_path/"pandas")] == [("a", "1", .5), ("b", None, .5)]


@pytest.mark.parametrize("kind", ["loose", "tar"])
def test_sound_files_without_parquet(kind, tmp_path):
    if kind == "loose":
        for n in range(2): (write(tmp_path/"d"/"train")/f"{n}.wav").write_bytes(wav(n + 1))
        (tmp_path/"d"/"train"/"metadata.csv").write_text("file_name,text\n1.wav,two\n0.wav,one\n")
        rows = both(tmp_path/"d")
    else:
        with tarfile.open(write(tmp_path/"d")/"train-0000.tar", "w") as tar:
            for name, data in [("0.wav", wav(1)), ("0.txt", b"one"), ("1.wav", wav(2)), ("1.txt", b"two")]:
                entry = tarfile.TarInfo(name); entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        rows = both(tmp_path/"d", columns={"text": "txt"})
    assert {c["text"]: c["duration_s"] for c in rows} == {"one": 1, "two": 2}
    assert "torchcodec" not in sys.modules


def test_repeated_ids_become_numbers(tmp_path, capsys):
    features, row, _ = REAL["openslr/librispeech_asr"]
    folder = write(tmp_path/"openslr"/"librispeech_asr", train=parquet([row | {"audio": sound(.1)}]*2, features))
    assert load_hub(folder)["id"][:] == ["train/0", "train/1"] and "occur more than once" in capsys.readouterr().out


def test_saved_corpora_come_back(tmp_path):
    accents = load_corpus("common_voice:data/accents").select(range(0, 400, 40))
    accents.save_to_disk(tmp_path/"saved")
    datasets.DatasetDict(train=accents).save_to_disk(tmp_path/"parts")
    accents.to_parquet(write(tmp_path/"parquet")/"all.parquet")
    for name in ("saved", "parts", "parquet"):
        for row, clip in zip(both(tmp_path/name), accents, strict=True): assert row | {"audio": None} == clip | {"audio": None}
        assert fingerprint(load_corpus(f"hub:{tmp_path/name}")) == fingerprint(accents)


def test_a_copy_of_what_has_left_the_hub(tmp_path):
    "Common Voice is no longer on the hub; a copy that somebody still has is read."
    row = dict(audio=sound(1), sentence="Habari.", locale="sw", client_id="v1")
    features = dict(audio=Audio(), sentence=STRING, locale=STRING, client_id=STRING)
    folder = write(tmp_path/"mozilla-foundation"/"common_voice_17_0", test=parquet([row], features))
    clip, = both(folder)
    assert (clip["text"], clip["language"], clip["speaker"], clip["split"]) == ("Habari.", "sw", "v1", "test")
    with pytest.raises(UserError, match="common_voice:mdc:DATASET_ID"): load_hub("mozilla-foundation/common_voice_17_0")


def test_sound_stays_on_the_disk(tmp_path):
    "80 MB of sound: neither loading nor pickling (which datasets does for its fingerprints and workers) may hold it."
    rows = [dict(audio=sound(30), text=f"{n}") for n in range(84)]
    folder = write(tmp_path/"large", train=parquet(rows, dict(audio=Audio(), text=STRING), row_group=8))
    load_hub(folder)  # writes datasets' copy
    def held(make):  # bytes that Python and Arrow hold after it; what they have given back, the allocators may keep
        gc.collect(); tracemalloc.start(); before = pa.total_allocated_bytes()
        made = make(); gc.collect()
        try: return made, tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes() - before
        finally: tracemalloc.stop()
    corpus, grown = held(lambda: load_hub(folder))
    assert grown < 1_000_000 and len(pickle.dumps(corpus)) < 200_000
    assert corpus.data["audio"].nbytes > 80_000_000 and corpus["duration_s"][:] == [30.]*84
    assert held(lambda: [r["bytes"] for r in corpus.data["audio"].to_pylist()])[1] > 80_000_000, "what is held is seen"


@pytest.mark.parametrize("error, remedy", [
    (OSError(errno.ENOSPC, "No space left on device"), "set HF_HOME to a larger disk"),
    (OSError("Not enough disk space. Needed: 9 TB"), "set HF_HOME to a larger disk"),
    (datasets.exceptions.DatasetGenerationError("An error occurred while generating the dataset"), "download it again"),
    (RuntimeError("Dataset scripts are no longer supported, but found plain.py"), "the hub has no copy")])
def test_errors_become_remedies(error, remedy, tmp_path, monkeypatch):
    def fail(*args, **kwargs): raise error
    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(UserError, match=remedy): load_hub(write(tmp_path/"plain"))


@pytest.mark.parametrize("name", ["", "no such thing", "/no/such/folder", "a/b/c", "../a"])
def test_names_that_are_none(name):
    with pytest.raises(UserError): load_hub(name)


class Hub(ThreadingHTTPServer):
    "What the hub answers: files of repositories by revision, trees, and refusals with its own headers."
    def __init__(self, repos):
        super().__init__(("127.0.0.1", 0), Answer)
        self.repos, self.seen, self.url = repos, [], f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args): pass

    def say(self, status, body=b"", **headers):
        if not isinstance(body, bytes): body = json.dumps(body).encode()
        self.send_response(status)
        for k, v in ({"Content-Length": len(body)} | headers).items(): self.send_header(k.replace("_", "-"), str(v))
        self.end_headers()
        if self.command != "HEAD": self.wfile.write(body)

    def refuse(self, status, code, message): self.say(status, {"error": message}, X_Error_Code=code, X_Error_Message=message)

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, token = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path), self.headers.get("Authorization")
        self.server.seen.append((path, token))
        for id, repo in self.server.repos.items():
            if path == f"/api/datasets/{id}": return self.answer(id, repo, "revision", "main", body, token)
            for kind in ("resolve", "tree", "revision", "paths-info"):
                start = f"/datasets/{id}/resolve/" if kind == "resolve" else f"/api/datasets/{id}/{kind}/"
                if path.startswith(start): return self.answer(id, repo, kind, path[len(start):], body, token)
        self.refuse(401, "RepoNotFound", "Repository not found")
    do_HEAD = do_POST = do_GET

    def answer(self, id, repo, kind, rest, body, token):
        if repo == "gated": return self.refuse(403 if token else 401, "GatedRepo", f"Access to dataset {id} is restricted.")
        if repo == "bad token": return self.refuse(401, "", "Invalid credentials in Authorization header")
        if isinstance(repo, int): return self.refuse(repo, "", "trouble")
        shas = {hashlib.sha1(name.encode()).hexdigest(): name for name in repo}
        revision = next((r for r in [*repo, *shas] if rest == r or rest.startswith(f"{r}/")), None)
        if revision is None: return self.refuse(404, "RevisionNotFound", "Invalid rev id")
        name, rest = shas.get(revision, revision), rest[len(revision) + 1:]
        files, sha = repo[name], hashlib.sha1(name.encode()).hexdigest()
        folders = {"/".join(p.split("/")[:k]) for p in files for k in range(1, p.count("/") + 1)}
        entries = [dict(type="file", oid=hashlib.sha1(data).hexdigest(), size=len(data), path=p) for p, data in files.items()]
        entries += [dict(type="directory", oid="0", size=0, path=p) for p in sorted(folders)]
        if kind == "revision": return self.say(200, dict(id=id, sha=sha, siblings=[dict(rfilename=p) for p in files]))
        if kind == "tree": return self.say(200, [e for e in entries if e["path"].startswith(rest)])
        if kind == "paths-info":
            paths = json.loads(body)["paths"] if body.startswith(b"{") else urllib.parse.parse_qs(body.decode())["paths"]
            return self.say(200, [e for e in entries if e["path"] in paths])
        if rest not in files: return self.say(404, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
        data, about = files[rest], dict(ETag=f'"{hashlib.sha1(files[rest]).hexdigest()}"', X_Repo_Commit=sha, Accept_Ranges="bytes")
        if not (wanted := self.headers.get("Range")): return self.say(200, data, **about)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        part = data[int(first):int(last or len(data)) + 1]
        self.say(206, part, Content_Range=f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}", **about)


VISIT = """
import json, os, sys
from whisper_tutorial.data.hub import load_hub
for name in sys.argv[2:]:
    if name.endswith("#"): os.environ.pop("HF_TOKEN", None)
    for streaming in ((False, True) if sys.argv[1] == "both" else (False,)):
        try: said = [[row["id"], row["text"], row["duration_s"], row["split"], row["licence"], row["language"]]
                     for row in load_hub(name.rstrip("#"), streaming=streaming)]
        except Exception as e: said = f"{type(e).__name__}: {e}"
        print("RESULT" + json.dumps([name, said]))
"""


@pytest.fixture(scope="module")
def hub():
    clips = {n: parquet([dict(audio=sound(n/10), text=f"number {k}") for k in range(n)], dict(audio=Audio(), text=STRING)) for n in (1, 2, 3)}
    card = b"---\nlicense: cc-by-4.0\nlanguage: [sw]\n---\n"
    server = Hub({
        "owner/plain": {"main": {"README.md": card, "data/train-00000-of-00001.parquet": clips[3], "data/dev-00000-of-00001.parquet": clips[1]},
                        "v1": {"data/train-00000-of-00001.parquet": clips[2]}},
        "owner/loose": {"main": {"train/metadata.csv": b"file_name,text\n1.wav,one\n2.wav,two\n", "train/1.wav": wav(1), "train/2.wav": wav(2)}},
        "owner/scripted": {"main": {"README.md": card, "scripted.py": b"import this"}, CONVERTED: {
            "sw/train/0000.parquet": clips[3], "sw/train.extra/0000.parquet": clips[1], "en/test/0000.parquet": clips[2]}},
        "owner/partial": {"main": {"partial.py": b"import this"}, CONVERTED: {"sw/partial-train/0000.parquet": clips[2]}},
        "owner/lost": {"main": {"lost.py": b"import this"}}, "owner/empty": {"main": {"README.md": b"Nothing."}},
        "owner/gated": "gated", "owner/bad": "bad token", "owner/forbidden": 403})
    yield server
    server.shutdown()


def visit(hub, home, ways, *names, **env):
    "Load datasets from the local hub in a process of its own, whose whole output must not hold the token."
    env = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"} | env | dict(
        HF_ENDPOINT=hub.url, HF_HOME=str(home), HF_HUB_DISABLE_XET="1", HF_TOKEN=TOKEN)
    done = subprocess.run([sys.executable, "-c", VISIT, ways, *names], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert TOKEN not in done.stdout and done.returncode == 0, done.stdout
    said = {}
    for name, rows in (json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("RESULT")):
        assert said.setdefault(name, rows) == rows  # streaming or not
    return said, done.stdout


GIVEN = {"owner/plain": 4, "owner/plain@v1": 2, "hub:owner/loose": 2, "owner/scripted:sw": 4, "owner/scripted:en": 2,
         f"owner/partial:sw@{CONVERTED}": 2}  # dataset → clips
REFUSED = {  # dataset → what the user is told
    "owner/gated": "HF_TOKEN is set;", "owner/nothing": "there is no dataset", "owner/plain@v9": "no revision `v9`",
    "owner/plain:sw": "it has default", "owner/scripted": "it has en, sw. Give one", "owner/scripted:ws": "it has en, sw",
    "owner/partial:sw": f"hub:owner/partial:sw@{CONVERTED}", "owner/lost": "folder:PATH", "owner/empty": "no files that datasets can read",
    "owner/bad": "make a new one", "owner/forbidden": "lacks the right", "owner/gated#": "HF_TOKEN is not set;"}


@pytest.fixture(scope="module")
def home(tmp_path_factory): return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def answers(hub, home): return visit(hub, home, "both", *GIVEN, *REFUSED)


def test_the_hub_gives(answers, hub):
    said, output = answers
    assert {name: len(said[name]) for name in GIVEN} == GIVEN
    assert said["owner/plain"] == [[f"train/{n}", f"number {n}", .3, "train", "CC-BY-4.0", "sw"] for n in range(3)] + [
        ["dev/0", "number 0", .1, "validation", "CC-BY-4.0", "sw"]]
    assert [row[1:4] for row in said["hub:owner/loose"]] == [["one", 1, "train"], ["two", 2, "train"]]
    assert [row[3:] for row in said["owner/scripted:sw"]] == [["train", "CC-BY-4.0", "sw"]]*4
    assert "its loading script is not run" in output
    assert {token for _, token in hub.seen if token} == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize("name", REFUSED)
def test_the_hub_refuses(name, answers, hub):
    said = answers[0][name]
    assert said.startswith("UserError: ") and REFUSED[name] in said, said
    if "gated" in name: assert f"{hub.url}/datasets/owner/gated" in said


def test_what_was_loaded_once_is_there_without_a_network(answers, hub, home):
    n = len(hub.seen)
    said, _ = visit(hub, home, "mapped", "owner/plain", "owner/plain@v1", "owner/plain@v9", "owner/other", HF_HUB_OFFLINE="1")
    for name in ("owner/plain", "owner/plain@v1"): assert said[name] == answers[0][name]  # the revision that was asked for
    assert said["owner/plain@v9"].startswith("UserError") and len(hub.seen) == n
    assert said["owner/other"].startswith("UserError") and "hf download owner/other" in said["owner/other"]
