"Common Voice as it lies on the disk, in every form that it has had; and a Data Collective that refuses, lies, and breaks off."
import errno, hashlib, io, logging, os, shutil, subprocess, sys, tarfile, threading, tracemalloc

import numpy as np, pytest, requests, soundfile
from servers import Answer, Server, as_json
from whisper_tutorial import UserError
from whisper_tutorial.data import common_voice
from whisper_tutorial.data.common_voice import as_table, load_common_voice, load_scripted, read_tsv
from whisper_tutorial.data.corpus import load_corpus

KEY = "mdc-5f3a-never-shown"
SENTENCES = ["Habari ya asubuhi.", '"Ng\'ombe wangapi?', 'Alisema "ndiyo', "Jambo!\u2028Mambo\x85"]
COLUMNS = {  # of the releases that changed them
    5: "client_id path sentence up_votes down_votes age gender accent locale segment",
    7: "client_id path sentence up_votes down_votes age gender accents locale segment",
    13: "client_id path sentence up_votes down_votes age gender accents variant locale segment",
    17: "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender accents variant locale segment",
    27: "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender accents variant locale segment prompt_upvotes"}
TALK = {1: "client_id audio_id audio_file duration_ms prompt_id prompt transcription votes language split",
        5: "client_id audio_id audio_file duration_ms prompt_id prompt transcription votes age gender accents variant language split char_per_sec"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    "Nothing of the user's: neither the cache, nor keys, nor the real server."
    monkeypatch.setenv("WHISPER_TUTORIAL_CACHE", str(tmp_path/"cache"))
    monkeypatch.delenv("MDC_API_KEY", raising=False)
    monkeypatch.setenv("MDC_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setattr(common_voice, "BACKOFF_S", 0)
    return tmp_path/"cache"


@pytest.fixture(scope="session")
def mp3():
    file = io.BytesIO()
    soundfile.write(file, .1*np.sin(np.arange(16_000)/10), 16_000, format="MP3")
    return file.getvalue()


def table(path, columns, rows, end="\n"):
    lines = [columns, *([str(row.get(c, "")) for c in columns] for row in rows)]
    path.write_bytes("".join("\t".join(line) + end for line in lines).encode())


def scripted(folder, mp3, release=25, splits=("train", "train", "dev", "test"), durations=True):
    "A release of Swahili in `folder`/cv-corpus-…/sw; `splits` may be empty, then there is only validated.tsv."
    at = folder/f"cv-corpus-{release}.0-2026-01-01"/"sw"
    (at/"clips").mkdir(parents=True)
    rows = [dict(client_id=f"voice{n}", path=f"common_voice_sw_{n}.mp3", sentence=s, age="twenties", accent="Pwani", accents="Pwani",
                 locale="sw") for n, s in enumerate(SENTENCES)]
    for row in rows: (at/"clips"/row["path"]).write_bytes(mp3)
    columns = COLUMNS[max(k for k in COLUMNS if k <= release)].split()
    for name in dict.fromkeys(splits): table(at/f"{name}.tsv", columns, [r for r, s in zip(rows, splits) if s == name])
    table(at/"validated.tsv", columns, rows)
    for name in ("other", "invalidated"): table(at/f"{name}.tsv", columns, [{**rows[0], "path": f"{name}.mp3"}])
    if durations: table(at/"clip_durations.tsv", ["clip", "duration[ms]"], [{"clip": r["path"], "duration[ms]": 1234} for r in rows])
    for name in ("reported", "unvalidated_sentences", "validated_sentences"): (at/f"{name}.tsv").write_text("sentence\nx\ty\tz\n")
    return at


def spontaneous(folder, mp3, release=5):
    at = folder/f"sps-corpus-{release}.0-2026-01-01-sw"
    (at/"audios").mkdir(parents=True)
    rows = [dict(client_id="v", audio_file=f"spontaneous-speech-sw-{n}.mp3", duration_ms=1000, transcription=t, split=s, language="Swahili", age="teens")
            for n, (t, s) in enumerate([("Ndiyo [noise]", "train"), ("Hapana", "dev"), ("", "unassigned")])]
    for row in rows: (at/"audios"/row["audio_file"]).write_bytes(mp3)
    table(at/"ss-corpus-sw.tsv", TALK[release].split(), rows)
    table(at/"ss-reported-audios-sw.tsv", ["audio_file", "reason"], [dict(audio_file="spontaneous-speech-sw-9.mp3")])
    return at


def pack(folder, to):
    with tarfile.open(to, "w:gz") as t: t.add(folder, folder.name)
    return to


@pytest.mark.parametrize("release", COLUMNS)
def test_columns_by_name(tmp_path, mp3, release):
    scripted(tmp_path, mp3, release, durations=release > 13)
    corpus = load_common_voice(tmp_path)
    assert corpus["id"][:] == [f"common_voice_sw_{n}" for n in range(4)] and corpus["text"][:] == SENTENCES
    assert corpus["split"][:] == ["train", "train", "validation", "test"] and set(corpus["accent"]) == {"Pwani"}
    assert set(corpus["language"]) == {"sw"} and set(corpus["source"]) == {"common_voice"} and set(corpus["licence"]) == {None}
    assert all(s == 1.234 if release > 13 else abs(s - 1) < .1 for s in corpus["duration_s"])


def test_lines_as_they_are(tmp_path):
    "A mark before the first byte, Windows' line ends, an empty line, a backslash, a quotation mark: all but the first three belong to the text."
    (tmp_path/"a.tsv").write_bytes('\ufeffpath\tsentence\r\na\t"C:\\n"\r\n\r\nb\t\'"\r\n'.encode())
    assert [list(row.values()) for row in read_tsv(tmp_path/"a.tsv", ("path",))] == [["a", '"C:\\n"'], ["b", "'\""]]


@pytest.mark.parametrize("splits", [(), ("dev", "none", "none", "none")], ids=["delta", "empty"])
def test_validated_where_there_are_no_splits(tmp_path, mp3, splits):
    at = scripted(tmp_path, mp3, splits=splits)
    if splits: (at/"dev.tsv").write_text((at/"dev.tsv").read_text().splitlines()[0] + "\n")
    corpus = load_common_voice(tmp_path)
    assert corpus["split"][:] == [None]*4 and corpus["text"][:] == SENTENCES


def test_a_clip_in_two_splits_is_refused(tmp_path, mp3):
    at = scripted(tmp_path, mp3)
    shutil.copy(at/"train.tsv", at/"test.tsv")
    with pytest.raises(UserError, match="2 ids of `common_voice` occur more than once"): load_common_voice(tmp_path)


@pytest.mark.parametrize("release", TALK)
def test_spontaneous_speech(tmp_path, mp3, release):
    folder = spontaneous(tmp_path, mp3, release)
    for source in (folder, tmp_path, pack(folder, tmp_path/"x.tgz")):
        corpus = load_common_voice(source)
        assert corpus["text"][:] == ["Ndiyo [noise]", "Hapana", ""] and corpus["split"][:] == ["train", "validation", None]
        assert corpus["duration_s"][:] == [1.]*3 and set(corpus["language"]) == {"sw"}
        assert set(corpus["age"]) == ({"teens"} if release > 1 else {None})


def test_both_kinds_in_one_folder(tmp_path, mp3):
    spontaneous(tmp_path, mp3); scripted(tmp_path, mp3)
    assert len(load_common_voice(tmp_path)) == 7


@pytest.mark.parametrize("sheet, licence", [
    ("# Swahili\n\n## Licence\n\nReleased under the [Creative Commons Zero (CC-0)](https://x) licence.\n", "CC0-1.0"),
    ("# Swahili\n\n## License\n\nCC0 1.0\n", "CC0-1.0"),
    ("# Swahili\n\nThe sentences are CC0.\n\n## Licence\n\nAsk us.\n", None),
    ("# Swahili\n\nCC0 sentences\n", None), ("\xff## Licence\n\xffAsk\n", None)])
def test_licence_is_what_the_sheet_says(tmp_path, mp3, sheet, licence):
    (scripted(tmp_path, mp3)/"README.md").write_bytes(sheet.encode("latin-1"))
    assert set(load_common_voice(tmp_path)["licence"]) == {licence}


def test_an_archive_is_unpacked_once(tmp_path, mp3, cache):
    at = scripted(tmp_path, mp3)
    archive = pack(at.parent, tmp_path/"cv.tar.gz")
    first = load_corpus(f"common_voice:{archive}")
    assert first["text"][:] == SENTENCES and all(str(cache) in a["path"] for a in first["audio"])
    before = {p: p.stat().st_mtime_ns for p in cache.rglob("*")}
    assert load_corpus(f"common_voice:{archive}")["audio"][:] == first["audio"][:]
    assert {p: p.stat().st_mtime_ns for p in cache.rglob("*")} == before


def climbing(path):
    with tarfile.open(path, "w:gz") as t:
        info = tarfile.TarInfo("cv/sw/../../../../evil.txt"); info.size = 1
        t.addfile(info, io.BytesIO(b"x"))

def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[:int(len(data)*share)])


@pytest.mark.parametrize("harm, words", [(lambda p: cut(p, .5), "damaged"), (lambda p: cut(p, .999), "damaged"), (lambda p: p.write_bytes(b""), "damaged"),
                                         (lambda p: p.write_bytes(b"<html>"), "damaged"), (climbing, "leads out")])
def test_a_bad_archive_leaves_nothing(tmp_path, mp3, cache, harm, words):
    archive = pack(scripted(tmp_path, mp3).parent, tmp_path/"cv.tar.gz")
    harm(archive)
    with pytest.raises(UserError, match=words): load_common_voice(archive)
    assert not [p for p in tmp_path.rglob("*") if p.name == "evil.txt"] and not list(cache.rglob("*.*"))


@pytest.mark.parametrize("name, text, words", [
    ("train", b"client_id\tpath\n", "no column `sentence`"), ("train", b"", "it has none"),
    ("dev", b"path\tsentence\na\tb\tc\n", "line 2 of .*dev.tsv` has 3 fields, and the first 2"),
    ("test", b"path\tsentence\na\tNg\xe2ombe\n", "not UTF-8"), ("clip_durations", b"clip\tms\n", r"no column `duration\[ms\]`"),
    ("train", b"path\tsentence\na\t" + b"x"*200_000, "field larger than field limit")])
def test_bad_tables(tmp_path, mp3, name, text, words):
    (scripted(tmp_path, mp3)/f"{name}.tsv").write_bytes(text)
    with pytest.raises(UserError, match=words): load_common_voice(tmp_path)


def test_many_clips_in_little_memory(tmp_path):
    "A million rows may take a gigabyte at most: here a hundredth of them."
    at, n = tmp_path/"sw", 10_000
    (at/"clips").mkdir(parents=True)
    rows = [dict(client_id=f"{i % 50:0128x}", path=f"common_voice_sw_{i:08}.mp3", sentence="Habari ya asubuhi ndugu zangu wote?", locale="sw")
            for i in range(n)]
    table(at/"train.tsv", COLUMNS[27].split(), rows)
    table(at/"clip_durations.tsv", ["clip", "duration[ms]"], [{"clip": r["path"], "duration[ms]": 5000} for r in rows])
    del rows
    tracemalloc.start()
    try: assert len(as_table(load_scripted(at))) == n and tracemalloc.get_traced_memory()[1] < n*1000
    finally: tracemalloc.stop()


class Mozilla:
    "A Data Collective with one dataset, and the storage on another host, to which its signed addresses lead."
    ID = "cmt95wvb80027qb6e2vezm3d9"

    def __init__(self, api, storage, archive):
        self.api, self.storage, self.bytes = api, storage, archive.read_bytes()
        self.says = dict(id=self.ID, filename="sw.tar.gz", sizeBytes=len(self.bytes), checksum=hashlib.sha256(self.bytes).hexdigest(),
                         locale="sw", licenseAbbreviation="CC0-1.0", license="Creative Commons Zero", newField=1)
        api.routes[f"/api/datasets/{self.ID}"] = lambda _: as_json(self.says)
        api.routes[f"/api/datasets/{self.ID}/download"] = self.ticket
        self.tickets, self.files = api.faults[f"/api/datasets/{self.ID}/download"], storage.faults["/bucket/1"]  # what goes wrong first
        storage.routes["/bucket/1"] = lambda _: Answer(self.bytes)

    def ticket(self, request):
        if request.headers.get("authorization") != f"Bearer {KEY}": return as_json({"error": "Invalid API key"}, 401)
        return as_json({k: self.says[k] for k in ("sizeBytes", "checksum", "filename")} | {"downloadUrl": f"{self.storage.url}/bucket/1?signature=s3cret"})

    def load(self): return load_corpus(f"common_voice:mdc:{self.ID}")


@pytest.fixture
def mozilla(tmp_path, mp3, monkeypatch):
    with Server() as api, Server("localhost") as storage:
        monkeypatch.setenv("MDC_API_KEY", KEY)
        monkeypatch.setenv("MDC_API_URL", f"{api.url}/api/")
        at = scripted(tmp_path/"made", mp3)
        (at/"clips"/"large.mp3").write_bytes(np.random.default_rng(0).bytes(400_000))  # several pieces of 64 KiB
        yield Mozilla(api, storage, pack(at.parent, tmp_path/"made.tar.gz"))


def test_download(mozilla, cache, monkeypatch):
    corpus = mozilla.load()
    assert corpus["text"][:] == SENTENCES and set(corpus["licence"]) == {"CC0-1.0"}
    assert [p.name for p in (cache/"downloads"/"mdc"/mozilla.ID).iterdir() if p.suffix in (".part", ".checksum")] == []
    monkeypatch.delenv("MDC_API_KEY")
    before = len(mozilla.api.log) + len(mozilla.storage.log)
    next(cache.rglob("sw.tar.gz")).unlink()
    assert mozilla.load()["id"][:] == corpus["id"][:] and len(mozilla.api.log) + len(mozilla.storage.log) == before


def test_the_key_goes_to_one_host_and_nowhere_else(mozilla, cache, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    mozilla.files += [Answer(mozilla.bytes, cut=1000)]
    mozilla.load()
    assert [bool(r.headers.get("authorization")) for r in mozilla.api.requests(method="POST")] == [True, True]
    assert len(mozilla.storage.log) == 2 and not any(KEY in repr(r) for r in mozilla.storage.log)
    assert "datasets" in caplog.text and "bucket" in caplog.text
    for text in (caplog.text, *capfd.readouterr(), *(p.read_bytes().decode("latin-1") for p in cache.rglob("*") if p.is_file())):
        assert KEY not in text and "s3cret" not in text


def test_a_redirect_does_not_take_the_key_along(mozilla):
    mozilla.tickets += [Answer(b"", 307, {"Location": f"{mozilla.storage.url}/elsewhere"})]
    with pytest.raises(UserError): mozilla.load()
    assert mozilla.storage.requests("/elsewhere") and not any(KEY in repr(r) for r in mozilla.storage.log)


@pytest.mark.parametrize("key", ["", f"{KEY}\n", f" {KEY}", f"{KEY}…", "wrong"])
def test_keys_that_are_none(mozilla, monkeypatch, key):
    monkeypatch.setenv("MDC_API_KEY", key)
    with pytest.raises(UserError, match="MDC_API_KEY") as e: mozilla.load()
    assert KEY not in str(e.value) and e.value.__cause__ is None and not mozilla.storage.log


def refused(status, words, **headers): return as_json({"error": words}, status, **headers)


@pytest.mark.parametrize("answer, words", [
    (refused(401, "Expired"), "expired or revoked; make a new one at https://mozilladatacollective.com/profile/credentials"),
    (refused(403, "Terms not agreed to"), r"\(Terms not agreed to\): open https://mozilladatacollective.com/datasets/cmt95wvb80027qb6e2vezm3d9"),
    (refused(404, "Not found"), r"no dataset `cmt95wvb80027qb6e2vezm3d9`, or no longer \(Not found\)"), (refused(410, "Removed"), r"no longer \(Removed\)"),
    (refused(429, "Daily limit", **{"Retry-After": "3600"}), "come back after 3600 seconds"), (refused(402, "It must be bought"), "It must be bought"),
    (refused(500, "Oops"), "Oops"), (Answer(b"<html>"), "cannot be asked"), (as_json({"downloadUrl": None}), "cannot be asked"),
    (as_json({"downloadUrl": "http://127.0.0.1:9/x?signature=s3cret", "sizeBytes": 5, "checksum": None}), "broke off after 0.0 B of 5.0 B; the same command starts it again")])
def test_refusals(mozilla, cache, answer, words):
    mozilla.tickets += [answer]*6
    with pytest.raises(UserError, match=words) as e: mozilla.load()
    assert KEY not in str(e.value) and "s3cret" not in str(e.value) and e.value.__cause__ is None and e.value.__suppress_context__
    assert not list(cache.rglob("*.gz")) and not (cache/"unpacked").exists()


def test_no_network(mozilla, monkeypatch):
    monkeypatch.setenv("MDC_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(UserError, match="cannot be asked for .*refused"): mozilla.load()


@pytest.mark.parametrize("change, words", [(dict(filename="../../evil.tar.gz"), "no name for a file"), (dict(filename="/tmp/evil"), "no name"),
                                           (dict(filename=None), "no name"), (dict(id=None), "cannot be asked"), (dict(sizeBytes=10**18), "are free")])
def test_a_server_that_says_nonsense(mozilla, cache, change, words):
    mozilla.says |= change
    with pytest.raises(UserError, match=words): mozilla.load()
    assert not list(cache.parent.rglob("evil*")) and not mozilla.storage.log


@pytest.mark.parametrize("name", ["", "../x", "a b", "https://mozilladatacollective.com/datasets/", "x?y=1"])
def test_names_that_are_none(name):
    with pytest.raises(UserError, match="followed by the id|KIND:PATH"): load_corpus(f"common_voice:mdc:{name}")


def test_a_cut_download_goes_on(mozilla):
    n = len(mozilla.bytes)
    mozilla.files += [Answer(mozilla.bytes, cut=n//3), Answer(mozilla.bytes, cut=n//3), Answer(b"", 503)]
    assert len(mozilla.load()) == 4
    asked = [r.headers.get("range") for r in mozilla.storage.log]
    assert asked[0] is None and asked[1].startswith("bytes=") and mozilla.storage.sent() < n + 2*65536  # pieces that were cut


def test_an_interrupted_download_goes_on_in_the_next_call(mozilla, cache):
    n = len(mozilla.bytes)
    mozilla.files += [Answer(mozilla.bytes, cut=n//2)] + [Answer(b"", 503)]*5
    with pytest.raises(UserError, match="broke off after .* the same command goes on from there"): mozilla.load()
    assert not list(cache.rglob("*.tar.gz")) and len(mozilla.storage.log) == 6
    half = next(cache.rglob("*.part")).stat().st_size
    assert half > n//3 and len(mozilla.load()) == 4 and mozilla.storage.log[-1].headers["range"] == f"bytes={half}-"


def test_a_download_that_was_cut_after_its_last_byte(mozilla, cache):
    at = cache/"downloads"/"mdc"/mozilla.ID
    at.mkdir(parents=True)
    (at/"sw.tar.gz.part").write_bytes(mozilla.bytes); (at/"sw.tar.gz.checksum").write_text(mozilla.says["checksum"])
    assert len(mozilla.load()) == 4 and not mozilla.storage.log


def test_a_storage_that_knows_no_ranges(mozilla, cache):
    "It sends all again, and the client writes that behind what it has."
    mozilla.files += [Answer(mozilla.bytes, cut=100_000), Answer(mozilla.bytes, ranges=False)]
    with pytest.raises(UserError, match="bytes, and not .* was removed"): mozilla.load()
    assert not list(cache.rglob("*.tar.gz*")) and len(mozilla.load()) == 4


def test_wrong_bytes_are_removed(mozilla, cache):
    mozilla.files += [Answer(mozilla.bytes[:-1] + b"?")]
    with pytest.raises(UserError, match="has the sha256 .* It was removed"): mozilla.load()
    assert not list(cache.rglob("*.tar.gz")) and not list(cache.rglob("release.json")) and len(mozilla.load()) == 4


def test_another_archive_of_the_same_name_is_not_taken(mozilla, cache):
    at = cache/"downloads"/"mdc"/mozilla.ID
    at.mkdir(parents=True)
    (at/"sw.tar.gz").write_bytes(b"an older version")
    with pytest.raises(UserError, match="was removed"): mozilla.load()
    assert len(mozilla.load()) == 4


@pytest.mark.parametrize("size", [True, False])
def test_without_a_checksum_the_size_counts(mozilla, size):
    mozilla.says["checksum"] = None
    if size: mozilla.files += [Answer(mozilla.bytes[:-9])]
    else: mozilla.says["sizeBytes"] += 1
    with pytest.raises(UserError, match="bytes, and not"): mozilla.load()


def test_a_right_checksum_of_a_broken_archive(mozilla, cache):
    mozilla.bytes = mozilla.bytes[:-100]
    mozilla.says |= dict(sizeBytes=len(mozilla.bytes), checksum=hashlib.sha256(mozilla.bytes).hexdigest())
    with pytest.raises(UserError, match="damaged"): mozilla.load()
    assert not list(cache.rglob("release.json")) and not list((cache/"unpacked").iterdir())


def breaking(error, real=requests.Response.iter_content):
    "What the storage sends ends in `error`; the answers of the API are whole."
    def iter_content(self, chunk_size=1, decode_unicode=False):
        if "bucket" not in self.url: yield from real(self, chunk_size, decode_unicode); return
        yield b"some"
        raise error
    return iter_content


def test_control_c_stays_control_c(mozilla, monkeypatch):
    monkeypatch.setattr(requests.Response, "iter_content", breaking(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt): mozilla.load()


def test_a_disk_that_fills_up(mozilla, cache, monkeypatch):
    with monkeypatch.context() as m:
        m.setattr(requests.Response, "iter_content", breaking(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(UserError, match="No space left on device.*WHISPER_TUTORIAL_CACHE"): mozilla.load()
    assert not list(cache.rglob("*.tar.gz")) and len(mozilla.storage.log) == 1


def test_two_at_once_fetch_once(mozilla):
    got = []
    both = [threading.Thread(target=lambda: got.append(len(mozilla.load()))) for _ in range(2)]
    for t in both: t.start()
    for t in both: t.join()
    assert got == [4, 4] and len(mozilla.storage.log) == 1


def test_what_the_release_says_wins(mozilla):
    mozilla.says |= dict(licenseAbbreviation=None, license="Ask us", locale="en")
    corpus = mozilla.load()
    assert set(corpus["licence"]) == {"Ask us"} and set(corpus["language"]) == {"sw"}


def test_no_env_file_is_read(tmp_path):
    "A stranger's `.env` could send the key to another server."
    (tmp_path/".env").write_text("MDC_API_URL=http://evil.example\nMDC_API_KEY=x\n")
    code = "import os; from whisper_tutorial.data.common_voice import client; client(); print([k for k in os.environ if 'MDC' in k or 'DOTENV' in k])"
    env = {k: v for k, v in os.environ.items() if "MDC" not in k}
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, text=True, capture_output=True).stdout.strip() == "[]"
