"Zenodo, as it answers on bad days: rights, redirects, cut connections, share links, and all that may lie in a record."
import gzip, hashlib, io, json, logging, os, random, tarfile, traceback, zipfile
from pathlib import Path

import numpy as np, pytest, soundfile
from hypothesis import given, strategies as st
from servers import Answer, Record, Server, Zenodo, as_json
from whisper_tutorial.core import UserError, scrub
from whisper_tutorial.data import download as dl
from whisper_tutorial.data import zenodo as zn
from whisper_tutorial.data.checks import check_corpus
from whisper_tutorial.data.corpus import FEATURES, load_corpus, select
from whisper_tutorial.data.download import cache_folder
from whisper_tutorial.data.zenodo import list_record, load_zenodo, record_number

TOKEN, SHARE = "p3rsonalT0ken", "eyJhbGciOi.sh4re-T0ken_x"
SPEECH = os.environ.get("WHISPER_TUTORIAL_SPEECH")


def wav(seconds=.2, rate=16_000):
    out = io.BytesIO()
    soundfile.write(out, .1*np.sin(np.arange(int(seconds*rate))/10), rate, format="WAV")
    return out.getvalue()


def zipped(files):
    "The same files, the same bytes: a zip of now has the time in it, and another checksum two seconds later."
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, data in files.items(): z.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def tarred(files, mode="w:gz"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as t:
        for name, data in files.items():
            info = tarfile.TarInfo(name); info.size = len(data); t.addfile(info, io.BytesIO(data))
    return out.getvalue()


DIGITS = {f"free-spoken-digit-dataset-1.0/recordings/{d}_{who}_{n}.wav": wav() for d in range(10) for who in ("theo", "jackson") for n in (0, 4, 5, 10)}
HEAD = "wav\twords\tduration\n"
PLAIN = {"clips/a.wav": wav(), "clips/b.wav": wav(), "metadata.csv": b"file_name,transcription,corpus\nclips/a.wav,Hello.,mine\nclips/b.wav,Yes.,\n"}
CV = {"cv-corpus-22.0-2025-06-20/sw/clips/sw_1.mp3": b"", "cv-corpus-22.0-2025-06-20/sw/train.tsv":
      "client_id\tpath\tsentence\tlocale\nv1\tsw_1.mp3\tHabari\tsw\n".encode()}


def mp3():
    out = io.BytesIO(); soundfile.write(out, np.zeros(16_000), 16_000, format="MP3"); return out.getvalue()


CV["cv-corpus-22.0-2025-06-20/sw/clips/sw_1.mp3"] = mp3()
BIG = random.Random(0).randbytes(2_000_000)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WHISPER_TUTORIAL_CACHE", str(tmp_path/"cache"))
    monkeypatch.delenv("ZENODO_TOKEN", raising=False)
    monkeypatch.setattr(dl, "BACKOFF_S", 0)


@pytest.fixture
def zenodo(monkeypatch):
    records = {"1342401": Record({"Jakobovski/free-spoken-digit-dataset-v1.0.zip": zipped(DIGITS)}, licence="CC-BY-SA-4.0", title="Digits"),
               "5482551": Record({"dvoice.zip": zipped(PLAIN)}, restricted=True, title="DVoice"),
               "100": Record({"clips.zip": zipped(PLAIN), "README.md": b"# Read me"})}
    with Zenodo(records, token=TOKEN, share=SHARE) as z:
        monkeypatch.setenv("ZENODO_URL", z.url)
        yield z


def fails(contains, call, *args):
    with pytest.raises(UserError) as e: call(*args)
    assert contains in str(e.value), e.value
    return str(e.value)


def content_path(number, name): return f"/api/records/{number}/files/{name}/content"


# open records

def test_digits(zenodo, capsys):
    corpus = load_corpus("zenodo:1342401")
    assert corpus.features == FEATURES and len(corpus) == 80
    assert set(corpus["licence"]) == {"CC-BY-SA-4.0"} and set(corpus["source"]) == {"zenodo:1342401"} and set(corpus["language"]) == {"en"}
    for name, text, split, speaker in zip(corpus["id"], corpus["text"], corpus["split"], corpus["speaker"]):
        digit, who, n = Path(name).stem.split("_")
        assert zn.WORDS[int(digit)] == text and who == speaker and split == ("test" if int(n) < 5 else "train")
    assert "Jakobovski-free-spoken-digit-dataset-v1.0.zip" in capsys.readouterr().out  # what is fetched is said first


@pytest.mark.parametrize("name", ["100", "10.5281/zenodo.100", "URL/records/100", "URL/record/100#files", "URL/records/100/files/clips.zip?download=1",
                                  "https://doi.org/10.5281/zenodo.100", " 100 ", "doi:10.5281/zenodo.100", "URL/api/records/100"])
def test_names_of_a_record(zenodo, name):
    assert len(list_record(name.replace("URL", zenodo.url))) == 2


@pytest.mark.parametrize("name", ["", "dvoice", "10.1234/5", "12a", "https://example.org/records/12", "zenodo.org/12/x", "../12", "12 13", "\n"])
def test_what_is_no_record(zenodo, name): fails("", record_number, name); assert not zenodo.log


@given(st.text(max_size=30) | st.from_regex(r"(https?://[a-z.]{1,9}/)?\w{0,9}/?\d{0,4}", fullmatch=True))
def test_a_record_is_digits_or_an_error(text):
    try: assert record_number(text).isdecimal()
    except UserError: pass


def test_a_second_call_asks_for_nothing(zenodo, monkeypatch):
    first = load_corpus("zenodo:100")
    zenodo.log.clear()
    assert load_corpus("zenodo:100")["id"][:] == first["id"][:] and not zenodo.log
    next(cache_folder("downloads").rglob("clips.zip")).write_bytes(b"damaged")
    load_corpus("zenodo:100")
    assert [r.path for r in zenodo.log] == ["/api/records/100", "/api/records/100/files", content_path(100, "clips.zip")]


def test_the_number_of_all_versions_gives_the_latest(zenodo):
    zenodo.records["99"] = Record({}, latest="100")
    assert set(load_corpus("zenodo:99")["source"]) <= {"zenodo:100", "mine"}
    assert [r.path for r in zenodo.log][:4] == [f"/api/records/{p}" for p in ("99", "99/versions/latest", "100", "100/files")]


def test_a_cut_connection_costs_a_piece(zenodo):
    zenodo.records["7"] = Record({"big.bin": BIG, "clips.zip": zipped(PLAIN)})
    path = content_path(7, "big.bin")
    zenodo.faults[path] += [Answer(BIG, cut=1_500_000), as_json({}, 503), as_json({}, 429, **{"Retry-After": "1"}), Answer(BIG, cut=300_000)]
    assert len(load_corpus("zenodo:7")) == 2
    assert zenodo.sent(path) < len(BIG) + 2*dl.PIECE + 1000


def test_a_wrong_md5(zenodo):
    zenodo.records["100"].checksums["clips.zip"] = "md5:" + "0"*32
    fails("it is damaged; fetch it again", load_zenodo, "100")
    assert not list(cache_folder().rglob("clips.zip*")) and not list(cache_folder().rglob("record.json")) and not cache_folder("unpacked").exists()


@pytest.mark.parametrize("status, contains", [(404, "there is no record"), (410, "was taken away"), (403, "although it is open"),
                                              (429, "wait a few minutes"), (500, "repeat later"), (401, "wrong or has expired")])
def test_refusals(zenodo, status, contains):
    zenodo.faults["/api/records/100/files"] += [as_json({"message": "no"}, status)]*9
    fails(contains, load_zenodo, 100)


@pytest.mark.parametrize("body", [b"", b"<html>maintenance</html>", b"[]", b"7", b'{"id": 1}', b'{"id": 100, "metadata": 3, "entries": []}',
                                  b'{"id": 100, "metadata": {}, "entries": [{"size": 3}]}', b'{"id": 100, "metadata": {}, "entries": 7}',
                                  b'{"id": "../../x", "metadata": {}, "entries": [{"key": "a"}]}'])
def test_an_answer_that_is_none(zenodo, body):
    for path in ("/api/records/100", "/api/records/100/files"): zenodo.routes[path] = Answer(body)
    answer = zenodo.answer
    zenodo.answer = lambda request: zenodo.routes.get(request.path) or answer(request)
    fails("not as Zenodo does", load_zenodo, 100)


def test_no_files(zenodo):
    zenodo.records["8"] = Record({})
    fails("has no files", load_zenodo, 8)


@pytest.mark.parametrize("key", ["../../evil.zip", "..", "", "a\\b.zip"])
def test_files_do_not_choose_their_place(zenodo, key):
    zenodo.records["9"] = Record({key: zipped(PLAIN)})
    fails("no name for a file here", load_zenodo, 9)


def test_a_hostile_archive(zenodo):
    for n, data in {"11": zipped({"../../out.txt": b"!"}), "12": zipped(PLAIN)[:-40], "13": b"no archive"}.items():
        zenodo.records[n] = Record({"a.zip": data})
        fails("fetch it again" if n != "11" else "do not trust it", load_zenodo, n)
        assert not list(cache_folder("unpacked", "127.0.0.1").iterdir())


# restricted records

def test_restricted(zenodo):
    message = fails('press "Request access"', load_zenodo, "5482551")
    assert f"{zenodo.url}/records/5482551" in message and "ZENODO_TOKEN" in message and "personal token" in message
    assert not list(cache_folder().rglob("*.zip"))


def test_with_a_personal_token(zenodo, monkeypatch):
    monkeypatch.setenv("ZENODO_TOKEN", f" {TOKEN}\n")  # as one copies it
    assert len(load_corpus("zenodo:5482551")) == 2
    assert {r.headers.get("authorization") for r in zenodo.log} == {f"Bearer {TOKEN}"}


def test_with_a_share_link(zenodo, monkeypatch):
    monkeypatch.setenv("ZENODO_TOKEN", f"{zenodo.url}/records/5482551?preview=1&token={SHARE}")
    assert len(load_corpus("zenodo:5482551")) == 2
    assert [SHARE in r.query.values() for r in zenodo.log] == [True, False, False, False]  # opened once, then the cookie
    assert not any("authorization" in r.headers for r in zenodo.log)


@pytest.mark.parametrize("secret, contains", [
    ("0utdated", "wrong or has expired"), ("URL/records/5482551?token=revoked", "gives no right"),
    ("https://zenodo.org.evil.example/records/5482551?token=T", "does not lead to"), ("two words", "copy it again"), ("sécret", "copy it again")])
def test_with_what_gives_no_right(zenodo, monkeypatch, secret, contains):
    monkeypatch.setenv("ZENODO_TOKEN", secret.replace("URL", zenodo.url))
    message = fails(contains, load_zenodo, "5482551")
    assert "revoked" not in message and "token=T" not in message and "0utdated" not in message and "two words" not in message and "sécret" not in message


def test_a_token_in_the_source_is_refused_and_not_shown(zenodo):
    message = fails("ZENODO_TOKEN", load_corpus, f"zenodo:{zenodo.url}/records/5482551?token={SHARE}")
    assert SHARE not in message and not zenodo.log


def test_a_token_is_not_sent_without_encryption(monkeypatch):
    monkeypatch.setenv("ZENODO_TOKEN", TOKEN); monkeypatch.setenv("ZENODO_URL", "http://zenodo.example/")
    fails("must begin with https://", load_zenodo, "1")


@pytest.mark.parametrize("kind", ["personal", "share"])
@pytest.mark.parametrize("way", ["content_at", "links_at"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_the_token_never_goes_to_another_host(zenodo, monkeypatch, kind, way, host, capfd, caplog, tmp_path):
    "Redirected, or by a link in an answer; another host, or only another port. Nor does it get into a file, a log or a message."
    caplog.set_level(logging.DEBUG)
    share = f"{zenodo.url}/records/5482551?token={SHARE}"
    monkeypatch.setenv("ZENODO_TOKEN", TOKEN if kind == "personal" else share)
    with Server(host) as other:
        setattr(zenodo.records["5482551"], way, other.url)
        for path in ("/dvoice.zip", "/dvoice.zip/content"): other.routes[path] = Answer(zipped(PLAIN))
        corpus = load_corpus("zenodo:5482551")
        assert len(corpus) == 2 and other.log and not any("authorization" in r.headers for r in other.log)
        seen = str([(r.path, r.query, r.headers) for r in other.log])
    monkeypatch.delenv("ZENODO_TOKEN")  # so that nothing is scrubbed any more
    files = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()).decode("latin1") + str(list(tmp_path.rglob("*")))
    out = capfd.readouterr()
    for text in (seen, files, out.out, out.err, caplog.text, repr(corpus[:])):
        for secret in (TOKEN, SHARE): assert secret not in text
    if kind == "share" and host == "localhost": assert "session=shared" not in seen


@pytest.mark.parametrize("kind", ["personal", "share"])
def test_no_error_shows_the_token(zenodo, monkeypatch, kind, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("ZENODO_TOKEN", TOKEN if kind == "personal" else f"{zenodo.url}/records/5482551?token={SHARE}")
    content = content_path(5482551, "dvoice.zip")
    troubles = [("/api/records/5482551", Answer(b"", 500)), ("/api/records/5482551/files", Answer(b"{", 200)), (content, Answer(b"", 401)),
                (content, Answer(b"x"*100, cut=10, ranges=False)), (content, Answer(b"", 302, {"Location": "http://127.0.0.1:9/x?token=" + SHARE})),
                ("/records/5482551", Answer(b"", 502)), ("/records/5482551", Answer(b"", cut=0))]
    for path, answer in troubles:
        zenodo.faults.clear(); zenodo.faults[path] += [answer]*40
        try: load_zenodo("5482551")
        except UserError as e: shown = ["".join(traceback.format_exception(e)), str(e), *map(str, e.args)]
        else: assert path == "/records/5482551" and kind == "personal"; continue
        for text in shown:
            assert TOKEN not in text and SHARE not in text, (path, text)
    assert TOKEN not in caplog.text and SHARE not in caplog.text


# what lies in a record

def load(zenodo, files, number="42", **about):
    zenodo.records[number] = Record(files, **about)
    return load_corpus(f"zenodo:{number}")


def dvoice(prefix, names="ab"):
    rows = "".join(f"{n}.wav\tكلام {n}\t0.2\n" for n in names)
    return {f"{prefix}wavs/{n}.wav": wav() for n in names} | {f"{prefix}texts/train.csv": (HEAD + rows).encode(), f"{prefix}texts/test.csv": HEAD.encode()}


def test_dvoice_of_one_language(zenodo):
    corpus = load(zenodo, {"dvoice-v1.0.zip": zipped(dvoice("dvoice-v1.0/"))}, "5482551")
    assert corpus["language"][:] == ["ar", "ar"] and corpus["accent"][:] == ["darija"]*2 and corpus["text"][:] == ["كلام a", "كلام b"]
    corpus = load(zenodo, {"d.zip": zipped(dvoice(""))}, "43")  # no folder at all, and nobody says which language it is
    assert corpus["language"][:] == [None, None] and corpus["split"][:] == ["train"]*2 and corpus["duration_s"][:] == [.2, .2]


def test_dvoice_of_several_languages(zenodo):
    files = {name: data for l in ("darija", "swahili", "fongbe") for name, data in dvoice(f"DVOICE/{l}/").items()}
    corpus = load(zenodo, {"DVOICE.tar.gz": tarred(files)})
    assert sorted(set(corpus["language"])) == ["ar", "fongbe", "sw"] and len(set(corpus["id"])) == 6
    kept, quarantined, _ = check_corpus(corpus)
    assert len(kept) + len(quarantined) == 6


def test_every_clip_of_dvoice_is_accounted_for(zenodo):
    files = dvoice("x/", "abc") | {"x/texts/train.csv": (HEAD + 'a.wav\t"نعم\t0.2\nmissing.wav\tلا\t1\nb\tلا\n\n').encode()}
    corpus = load(zenodo, {"x.zip": zipped(files)})
    assert corpus["text"][:] == ['"نعم', "لا", "لا", None] and [s is None for s in corpus["split"]] == [False]*3 + [True]
    kept, quarantined, _ = check_corpus(corpus)
    assert kept["text"][:] == ['"نعم', "لا"] and sorted(Path(i).name for i in quarantined["id"]) == ["c.wav", "missing.wav"]


@pytest.mark.parametrize("table, contains", [
    (b"wav\twords\nfile only\n", "line 2"), (b"wav\twords\td\na.wav\tx\tlong\n", "seconds, with TABs"), (b"wav,words,d\na.wav,x,1\n", "with TABs"),
    ("wav\twords\na.wav\tété\n".encode("latin1"), "save it as UTF-8"), (b"wav\tw\td\na.wav\tx\t1\na.wav\ty\t1\n", "more than once")])
def test_a_table_of_dvoice_that_is_broken(zenodo, table, contains):
    message = fails(contains, load, zenodo, {"x.zip": zipped(dvoice("x/") | {"x/texts/train.csv": table})})
    assert "load that with folder:PATH" in message


def test_common_voice_inside(zenodo):
    corpus = load(zenodo, {"cv.tar.gz": tarred(CV)}, licence="cc-zero")
    assert corpus["text"][:] == ["Habari"] and corpus["source"][:] == ["zenodo:42"] and corpus["licence"][:] == ["CC0-1.0"]


def test_a_plain_folder(zenodo):
    corpus = load(zenodo, {"clips.zip": zipped(PLAIN)}, licence="other-open")
    assert corpus["source"][:] == ["mine", "zenodo:42"] and corpus["licence"][:] == ["other-open"]*2  # a corpus' own name stays
    assert load(zenodo, {"a.wav": wav(), "a.txt": b"Hello."}, "44", licence=None)["licence"][:] == [None]


@pytest.mark.parametrize("archive", [{"a.wav": wav()}, {"clips/a.wav": wav()}, {"__MACOSX/clips/._a.wav": b"Mac", "clips/a.wav": wav(), "clips/._x": b""}])
def test_a_table_beside_an_archive(zenodo, archive):
    "With or without a folder in it: the clip is clips/a.wav."
    corpus = load(zenodo, {"clips.zip": zipped(archive), "metadata.csv": b"file_name,text\nclips/a.wav,Hello.\n"})
    assert corpus["text"][:] == ["Hello."] and corpus["duration_s"][:] == [.2]


def test_archives_with_the_same_folder(zenodo):
    files = {f"{s}.zip": zipped({"data/a.wav": wav(), "data/a.txt": s.encode()}) for s in ("train", "test")} | {"test.tar": tarred({"data/a.wav": wav()}, "w")}
    corpus = load(zenodo, files)
    assert len(corpus) == 3 and sorted(corpus["text"], key=str) == [None, "test", "train"]


def test_no_corpus(zenodo):
    message = fails("holds no audio", load, zenodo, {"paper.pdf": b"%PDF"})
    assert "record 42" in message


def test_speakers_of_the_digits_are_read_and_not_run(zenodo, tmp_path):
    ran = tmp_path/"ran"
    source = "metadata = {'theo': {'gender': 'male', 'accent': 'USA/neutral'}}\n"
    corpus = load(zenodo, {"d.zip": zipped(DIGITS | {"free-spoken-digit-dataset-1.0/metadata.py": source})})
    assert set(select(corpus, {"speaker": "theo"})["accent"]) == {"USA/neutral"} and set(select(corpus, {"speaker": "jackson"})["accent"]) == {None}
    evil = f"metadata = {{'theo': open({str(ran)!r}, 'w')}}\n"
    assert len(load(zenodo, {"d.zip": zipped(DIGITS | {"free-spoken-digit-dataset-1.0/metadata.py": evil})}, "45")) == 80 and not ran.exists()


@pytest.mark.parametrize("text", ["(", "x = 1", "metadata = {'a': 1}", "metadata = [1]", "\0", "a, b = {}, 1", "metadata = {'theo': {'gender': 3}}"])
def test_speakers_that_cannot_be_read(tmp_path, text):
    (tmp_path/"metadata.py").write_text(text)
    assert isinstance(zn.read_speakers(tmp_path/"metadata.py"), dict)


@pytest.mark.skipif(not SPEECH, reason="WHISPER_TUTORIAL_SPEECH names no folder of real speech")
def test_real_digits(zenodo):
    files = {f"fsdd/recordings/{p.name}": p.read_bytes() for p in sorted(Path(SPEECH, "fsdd").glob("*.wav"))}
    corpus = load(zenodo, {"fsdd.zip": zipped(files)})
    real = select(load_corpus(f"folder:{SPEECH}"), {"source": "fsdd"})
    theirs = {Path(i).name: (text.lower(), split, speaker) for i, text, split, speaker in zip(*(real[c] for c in ("id", "text", "split", "speaker")))}
    ours = {Path(i).name: (text, split, speaker) for i, text, split, speaker in zip(*(corpus[c] for c in ("id", "text", "split", "speaker")))}
    assert len(corpus) == 2000 and ours == theirs
