"Downloads and archives that go wrong: nothing may be lost, left half, sent to the wrong place, or written where it does not belong."
import errno, gzip, hashlib, io, logging, os, random, signal, stat, struct, subprocess, sys, tarfile, threading, time, zipfile, zlib
from pathlib import Path

import pytest
from hypothesis import example, given, settings, strategies as st
from servers import Answer, Server
from whisper_tutorial.core import UserError
from whisper_tutorial.data import download as dl
from whisper_tutorial.data.download import Remote, cache_folder, download, session, unpack, verify

DATA = random.Random(0).randbytes(3_000_000)
MD5 = "md5:" + hashlib.md5(DATA).hexdigest()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WHISPER_TUTORIAL_CACHE", str(tmp_path/"cache"))


@pytest.fixture
def hasty(monkeypatch): monkeypatch.setattr(dl, "BACKOFF_S", 0)


@pytest.fixture
def server():
    with Server() as s:
        s.routes["/a.bin"] = Answer(DATA)
        yield s


def remote(server, **changes): return Remote(**(dict(name="a.bin", url=server.url + "/a.bin", size=len(DATA), checksum=MD5) | changes))


def fails(contains, call, *args, **options):
    with pytest.raises(UserError) as e: call(*args, **options)
    assert contains in str(e.value), e.value
    return str(e.value)


# downloads

def test_a_second_call_fetches_nothing(server, tmp_path):
    for _ in range(2): path, = download([remote(server)], tmp_path/"d", session())
    assert path.read_bytes() == DATA and len(server.log) == 1
    path.write_bytes(DATA[:-1] + b"x")  # damaged since
    download([remote(server)], tmp_path/"d", session())
    assert path.read_bytes() == DATA and len(server.log) == 2


def test_a_cut_connection_goes_on_where_it_stopped(server, tmp_path):
    server.faults["/a.bin"] += [Answer(DATA, cut=1_000_000), Answer(DATA, cut=500_000)]
    path, = download([remote(server)], tmp_path, session())
    assert path.read_bytes() == DATA
    assert [bool(r.headers.get("range")) for r in server.log] == [False, True, True]
    assert len(DATA) <= server.sent() < len(DATA) + 2*dl.PIECE  # the piece under way comes again, and no more


def test_it_goes_on_in_another_process(server, tmp_path, hasty, monkeypatch):
    monkeypatch.setattr(dl, "TRIES", 1)
    server.faults["/a.bin"] += [Answer(DATA, cut=2_500_000), Answer(DATA, cut=0)]
    fails("it goes on from there", download, [remote(server)], tmp_path, session())
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["a.bin.part"]
    before = server.sent()
    download([remote(server)], tmp_path, session())
    assert (tmp_path/"a.bin").read_bytes() == DATA and server.sent() - before < 1_600_000


def test_a_server_without_ranges(server, tmp_path):
    server.routes["/a.bin"] = Answer(DATA, ranges=False)
    server.faults["/a.bin"] += [Answer(DATA, cut=2_500_000)]
    path, = download([remote(server)], tmp_path, session())
    assert path.read_bytes() == DATA and server.log[1].sent == len(DATA)


def test_a_range_from_elsewhere_is_not_appended(server, tmp_path):
    server.faults["/a.bin"] += [Answer(DATA, cut=2_500_000), Answer(DATA[10:], 206, {"Content-Range": f"bytes 10-{len(DATA)-1}/{len(DATA)}"})]
    fails("fetch it again", download, [remote(server, size=None)], tmp_path, session())  # it sent another part than it was asked for
    assert not (tmp_path/"a.bin").exists()


@pytest.mark.parametrize("size, checksum", [(None, MD5), (None, None), (len(DATA), None)])
@pytest.mark.parametrize("length", [True, False])
def test_unknown_size_or_checksum(server, tmp_path, size, checksum, length):
    server.routes["/a.bin"] = Answer(DATA, length=length)
    (tmp_path/"a.bin.part").write_bytes(DATA)  # all of it is here, and was not renamed: 416
    if not checksum: (tmp_path/"a.bin.part").write_bytes(b"of another version")
    path, = download([remote(server, size=size, checksum=checksum)], tmp_path, session())
    assert path.read_bytes() == DATA
    assert server.sent() == (0 if checksum else len(DATA))


def test_a_part_that_is_too_long_starts_over(server, tmp_path):
    (tmp_path/"a.bin.part").write_bytes(DATA + b"x")
    assert download([remote(server, size=None)], tmp_path, session())[0].read_bytes() == DATA  # 416, then all
    (tmp_path/"a.bin").unlink(); (tmp_path/"a.bin.part").write_bytes(DATA + b"x")
    assert download([remote(server)], tmp_path, session())[0].read_bytes() == DATA


def test_an_empty_file(server, tmp_path):
    server.routes["/a.bin"] = Answer(b"")
    path, = download([remote(server, size=0, checksum="md5:" + hashlib.md5(b"").hexdigest())], tmp_path, session())
    assert path.read_bytes() == b""


@pytest.mark.parametrize("changes, contains", [
    (dict(checksum="md5:" + "0"*32), "should have 00000000"), (dict(size=len(DATA) + 1), "were announced"), (dict(checksum="crc:1"), "cannot be read")])
def test_a_wrong_file_is_deleted(server, tmp_path, hasty, changes, contains):
    fails(contains, download, [remote(server, **changes)], tmp_path, session())
    assert not [p for p in tmp_path.iterdir() if p.name != ".lock"]


def test_retry_after_is_honoured(server, tmp_path):
    server.faults["/a.bin"] += [Answer(b"", 429, {"Retry-After": "1"})]
    start = time.monotonic()
    download([remote(server)], tmp_path, session())
    assert time.monotonic() - start >= 1 and len(server.log) == 2


def test_who_asks_for_an_hour_is_told_to_the_user(server, tmp_path):
    server.faults["/a.bin"] += [Answer(b"", 429, {"Retry-After": "3600"})]
    fails("come back in 60 minutes", download, [remote(server)], tmp_path, session())


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_server_that_stumbles(server, tmp_path, hasty, status):
    server.faults["/a.bin"] += [Answer(b"", status)]*3
    assert download([remote(server)], tmp_path, session())[0].read_bytes() == DATA


@pytest.mark.parametrize("status, contains", [
    (401, "make a new one"), (403, "ask for access"), (404, "check it"), (410, "newer version"), (429, "wait"), (500, "repeat later")])
def test_a_server_that_refuses(server, tmp_path, hasty, status, contains):
    server.routes["/a.bin"] = Answer(b"no", status)
    fails(contains, download, [remote(server)], tmp_path, session())
    assert not (tmp_path/"a.bin").exists()


def test_nobody_there(tmp_path, hasty):
    message = fails("check the network", download, [Remote("a", "http://127.0.0.1:9/a?token=s3cret")], tmp_path, session())
    assert "s3cret" not in message and "refused" in message and "127.0.0.1:9/a`" in message


def test_a_connection_that_never_gets_anywhere(server, tmp_path, hasty):
    server.routes["/a.bin"] = Answer(DATA, cut=1000, ranges=False)
    fails("breaks off", download, [remote(server)], tmp_path, session())


def test_several_at_once_and_one_that_fails(server, tmp_path, hasty):
    for n in range(8): server.routes[f"/{n}"] = Answer(DATA[n:])
    remotes = [Remote(f"{n}.bin", f"{server.url}/{n}", len(DATA) - n, "md5:" + hashlib.md5(DATA[n:]).hexdigest()) for n in range(8)]
    paths = download(remotes, tmp_path/"good", session())
    assert [p.read_bytes()[:9] for p in paths] == [DATA[n:n + 9] for n in range(8)]
    fails("404", download, [*remotes, Remote("no", server.url + "/no")], tmp_path/"bad", session())
    assert not (tmp_path/"bad"/"no").exists()


def test_two_processes_share_one_download(server, tmp_path):
    threads = [threading.Thread(target=download, args=([remote(server)], tmp_path, session())) for _ in range(3)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert (tmp_path/"a.bin").read_bytes() == DATA and len(server.log) == 1


def test_too_large_for_the_disk(server, tmp_path, monkeypatch):
    message = fails("are needed in", download, [remote(server, size=10**18)], tmp_path, session())
    assert "WHISPER_TUTORIAL_CACHE" in message and not server.log


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fills_up(server, tmp_path, monkeypatch, code):
    class Full(io.FileIO):
        def write(self, data):
            if self.tell() > 1_500_000: raise OSError(code, os.strerror(code))
            return super().write(data)
    real = open
    def opens(path, mode="r", *args, **options): return Full(path, mode.replace("b", "")) if "b" in mode and mode[0] in "awx" else real(path, mode, *args, **options)
    monkeypatch.setattr(dl, "open", opens, raising=False)
    message = fails("make room", download, [remote(server)], tmp_path, session())
    assert "WHISPER_TUTORIAL_CACHE" in message and not (tmp_path/"a.bin").exists()
    with zipfile.ZipFile(tmp_path/"a.zip", "w") as z: z.writestr("a.bin", DATA)
    fails("make room", unpack, tmp_path/"a.zip")
    assert not list(cache_folder("unpacked").iterdir())
    monkeypatch.undo()
    before = server.sent()
    assert download([remote(server)], tmp_path, session())[0].read_bytes() == DATA and server.sent() - before < len(DATA)


@pytest.mark.parametrize("name", ["../a", "/a", "a/b", "..", ".", "", "a\\b", "a\0b", ".hidden"])
def test_names_of_a_server_do_not_choose_the_place(server, tmp_path, name):
    fails("no name for a file here", download, [remote(server, name=name)], tmp_path/"d", session())
    assert not server.log


def test_two_files_of_one_name(server, tmp_path):
    fails("several files called 'a.bin'", download, [remote(server), remote(server)], tmp_path, session())


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path/"file").write_text("")
    fails("WHISPER_TUTORIAL_CACHE", download, [remote(server)], tmp_path/"file"/"d", session())


INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal: what is started in the background ignores it
from whisper_tutorial.data.download import Remote, download, session
download([Remote("a.bin", sys.argv[1] + "/slow", 3_000_000, sys.argv[3])], sys.argv[2], session())
"""


def test_ctrl_c_stops_at_once_and_the_next_call_goes_on(server, tmp_path):
    class Slow(bytes):  # seconds for what comes after the first million bytes
        def __getitem__(self, part): time.sleep(.3 if part.start and part.start > 1_000_000 else .01); return bytes.__getitem__(self, part)
    server.routes["/slow"] = lambda request: Answer(DATA if "range" in request.headers else Slow(DATA))
    args, part = [sys.executable, "-c", INTERRUPTED, server.url, str(tmp_path), MD5], tmp_path/"a.bin.part"
    process = subprocess.Popen(args, stderr=subprocess.PIPE, text=True)
    while not part.exists() or part.stat().st_size < 900_000: time.sleep(.02)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    assert process.returncode != 0 and "KeyboardInterrupt" in said
    assert not (tmp_path/"a.bin").exists() and part.stat().st_size < 2_900_000
    subprocess.run(args, check=True)
    assert (tmp_path/"a.bin").read_bytes() == DATA and server.log[-1].sent < 2_200_000 and not part.exists()


# tokens

@pytest.mark.parametrize("where", ["same", "redirect", "link", "port", "scheme"])
def test_the_token_goes_home_and_nowhere_else(server, tmp_path, where):
    with Server("localhost") as other:  # another host: the name is another one, and so is the port
        other.routes["/a.bin"] = Answer(DATA)
        at = {"same": server.url, "redirect": server.url, "link": other.url, "port": other.url.replace("localhost", "127.0.0.1"), "scheme": server.url}[where]
        if where == "redirect": server.routes["/a.bin"] = Answer(b"", 302, {"Location": other.url + "/a.bin"})
        home = server.url.replace("http", "https") if where == "scheme" else server.url
        download([Remote("a.bin", at + "/a.bin", len(DATA), MD5)], tmp_path, session(home, "s3cret"))
        seen = [r.headers.get("authorization") for r in server.log], [r.headers.get("authorization") for r in other.log]
    assert seen == {"same": (["Bearer s3cret"], []), "redirect": (["Bearer s3cret"], [None]), "link": ([], [None]),
                    "port": ([], [None]), "scheme": ([None], [])}[where]


def test_the_log_has_no_queries(server, tmp_path, caplog, hasty):
    caplog.set_level(logging.DEBUG)
    server.faults["/a.bin"] += [Answer(b"", 503)]
    download([remote(server, url=server.url + "/a.bin?token=s3cret")], tmp_path, session(server.url, "t0ken"))
    assert "/a.bin?…" in caplog.text and "s3cret" not in caplog.text and "t0ken" not in caplog.text
    assert "t0ken" not in repr(session(server.url, "t0ken").auth)


def test_checksums(tmp_path):
    (tmp_path/"a").write_bytes(b"abc")
    for kind in dl.SUMS: verify(tmp_path/"a", f"{kind}:{hashlib.new(kind, b'abc').hexdigest().upper()}")
    fails("it is damaged; fetch it again", verify, tmp_path/"a", "sha256:00")


# archives

MEMBERS = {"corpus/wavs/a.wav": b"sound"*1000, "corpus/wavs/b.wav": b"", "corpus/texts/عربي.csv": "كلام".encode()}


def make_zip(path, members, **options):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in members.items() if isinstance(members, dict) else members: z.writestr(name, data)
    return path


def tar_info(name, type=tarfile.REGTYPE, **about):
    info = tarfile.TarInfo(name); info.type = type
    for k, v in about.items(): setattr(info, k, v)
    return info


def make_tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as t:
        for item in members.items() if isinstance(members, dict) else members:
            if isinstance(item, tarfile.TarInfo): t.addfile(item); continue
            t.addfile(tar_info(item[0], size=len(item[1])), io.BytesIO(item[1]))
    return path


def content(folder): return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def nothing_left(): return not cache_folder("unpacked").exists() or not list(cache_folder("unpacked").iterdir())


KINDS = {"a.zip": make_zip, "a.tar": lambda p, m: make_tar(p, m, "w:"), "a.tar.gz": make_tar, "a.tgz": make_tar,
         "a.tar.bz2": lambda p, m: make_tar(p, m, "w:bz2"), "a.tar.xz": lambda p, m: make_tar(p, m, "w:xz"), "wrong.zip": make_tar}


@pytest.mark.parametrize("name", KINDS)
def test_archives_of_all_kinds(tmp_path, name):
    archive = KINDS[name](tmp_path/name, MEMBERS)
    folder = unpack(archive)
    assert content(folder) == MEMBERS and folder.parent == cache_folder("unpacked") and unpack(archive) == folder
    assert folder.name.startswith(name.split(".")[0] + "-") and not folder.stat().st_mode & stat.S_IRWXO & ~0o777
    assert content(unpack(archive, tmp_path/"here")) == MEMBERS
    assert {p.stat().st_mode & 0o111 for p in folder.rglob("*.wav")} == {0}


def test_another_version_has_another_place(tmp_path):
    first = unpack(make_zip(tmp_path/"a.zip", MEMBERS))
    assert content(unpack(make_zip(tmp_path/"a.zip", {"x": b"new"}))) == {"x": b"new"} and content(first) == MEMBERS


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("share", [0, .001, .3, .7, .97])
def test_truncated(tmp_path, name, share):
    noise = {f"{n}.wav": random.Random(n).randbytes(9000) for n in range(20)}
    archive = KINDS[name](tmp_path/name, noise)
    archive.write_bytes(archive.read_bytes()[:int(share*archive.stat().st_size)])
    if name == "a.tar" and share == .97: assert archive.stat().st_size > 20*9728  # only the zeros at its end are cut
    else: fails("fetch it again", unpack, archive); assert nothing_left()


def test_a_tar_that_ends_between_two_members(tmp_path):
    "tarfile takes it for whole."
    archive = make_tar(tmp_path/"a.tar", {f"{n}.wav": b"x"*512 for n in range(9)}, "w:")
    data = archive.read_bytes()
    for bad in (data[:4*1024], data[:4*1024 + 100], data[:4*1024] + b"?"*512 + data[4*1024 + 512:]):
        archive.write_bytes(bad)
        fails("fetch it again", unpack, archive)
    assert nothing_left()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(KINDS)), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_broken_bytes_are_an_error_or_harmless(tmp_path_factory, name, changes):
    folder = tmp_path_factory.mktemp("broken")
    archive = KINDS[name](folder/name, MEMBERS | {"big.wav": random.Random(1).randbytes(5000)})
    data = bytearray(archive.read_bytes())
    for where, value in changes: data[int(where*(len(data) - 1))] = value
    archive.write_bytes(data)
    try: unpack(archive, folder/"out")
    except UserError: assert not (folder/"out").exists()
    assert {p.name for p in folder.iterdir()} <= {name, "out"}


OUT = ["../out.txt", "a/../../out.txt", "/tmp/out.txt", "//out.txt", "..\\out.txt", "C:\\out.txt", "C:/out.txt", "\\out.txt", "..", "a/..", "a/../b"]


@pytest.mark.parametrize("name", OUT)
@pytest.mark.parametrize("kind", ["a.zip", "a.tar.gz"])
def test_names_that_lead_out(tmp_path, name, kind):
    archive = KINDS[kind](tmp_path/kind, {"good.wav": b"1", name: b"2"})
    fails("leads out of the folder", unpack, archive)
    assert nothing_left() and not (tmp_path/"out.txt").exists() and not (cache_folder()/"out.txt").exists()


part = st.sampled_from(["..", ".", "", "a", "b.wav", "C:", "...", " ", "~", "..a", "é", "\u2024\u2024", "%2e%2e", "con", "\0"]) | st.text(max_size=4)


@settings(max_examples=400, deadline=None)
@given(st.lists(part, min_size=1, max_size=6), st.sampled_from("/\\"))
@example(["", "etc", "passwd"], "/")
def test_no_name_climbs_out(parts, sep):
    name = sep.join(parts)
    try: plain = dl.inside(name)
    except UserError: return
    top = Path("/top/folder")
    assert os.path.normpath(top/plain) == str(top/plain) and (top/plain).is_relative_to(top) and not os.path.isabs(plain)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(part, min_size=1, max_size=4).map("/".join), min_size=1, max_size=3), st.sampled_from(["a.zip", "a.tar"]))
def test_no_archive_writes_outside(tmp_path_factory, names, kind):
    folder = tmp_path_factory.mktemp("climb")
    try: archive = KINDS[kind](folder/kind, [(n, b"x") for n in names])
    except (ValueError, IndexError): return  # no such archive can be made
    (folder/"deep"/"er").mkdir(parents=True)
    try: unpack(archive, folder/"deep"/"er"/"out")
    except UserError: assert not list((folder/"deep"/"er").iterdir())
    assert {p.name for p in folder.iterdir()} == {kind, "deep"} and {p.name for p in (folder/"deep").iterdir()} == {"er"}


SYM, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.parametrize("link, remedy", [
    (("a", SYM, "/etc/passwd"), "leads out"), (("a", SYM, "../../etc/passwd"), "leads out"), (("a", HARD, "/etc/passwd"), "leads out"),
    (("a", HARD, "../x"), "leads out"), (("a", SYM, ".."), "leads out"), (("a", SYM, "."), "no file in it"), (("a", SYM, "nothing"), "no file in it"),
    (("d/a", SYM, "../../x"), "leads out"), (("a", HARD, "dir"), "no file in it"), (("dir/x.wav", SYM, "../dir"), "no file in it")])
def test_links_that_lead_out(tmp_path, link, remedy):
    name, kind, target = link
    archive = make_tar(tmp_path/"a.tar.gz", [("dir/b.wav", b"b"), tar_info(name, kind, linkname=target)])
    fails(remedy, unpack, archive)
    assert nothing_left()


def test_links_inside_are_files(tmp_path):
    archive = make_tar(tmp_path/"a.tar", [tar_info("l/s.wav", SYM, linkname="../dir/b.wav"), ("dir/b.wav", b"b"), tar_info("h.wav", HARD, linkname="dir/b.wav")], "w:")
    folder = unpack(archive)
    assert content(folder) == {"dir/b.wav": b"b", "h.wav": b"b", "l/s.wav": b"b"} and not any(p.is_symlink() for p in folder.rglob("*"))
    with zipfile.ZipFile(tmp_path/"a.zip", "w") as z:
        z.writestr("dir/b.wav", b"b")
        for name, target in {"l/s.wav": "../dir/b.wav"}.items():
            info = zipfile.ZipInfo(name); info.external_attr = (stat.S_IFLNK | 0o777) << 16; z.writestr(info, target)
    assert content(unpack(tmp_path/"a.zip")) == {"dir/b.wav": b"b", "l/s.wav": b"b"}


def test_writing_through_a_link(tmp_path):
    "A link to a folder outside, then a file in that folder: the trick of most tar attacks."
    (tmp_path/"victim").mkdir()
    archive = make_tar(tmp_path/"a.tar", [tar_info("x", SYM, linkname=str(tmp_path/"victim")), ("x/evil.txt", b"!")], "w:")
    fails("", unpack, archive)
    assert not list((tmp_path/"victim").iterdir()) and nothing_left()


def test_a_link_in_a_zip_that_leads_out(tmp_path):
    info = zipfile.ZipInfo("a.wav"); info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path/"a.zip", "w") as z: z.writestr(info, "/etc/passwd")
    fails("leads out", unpack, tmp_path/"a.zip")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices(tmp_path, kind):
    fails("which is a device", unpack, make_tar(tmp_path/"a.tar", [tar_info("dev/sda", kind)], "w:"))
    info = zipfile.ZipInfo("dev/sda"); info.external_attr = stat.S_IFBLK << 16
    with zipfile.ZipFile(tmp_path/"a.zip", "w") as z: z.writestr(info, "")
    fails("which is a device", unpack, tmp_path/"a.zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
@pytest.mark.parametrize("second", ["a/b.wav", "./a/b.wav", "a//b.wav", "a", "a/b.wav/c"])
def test_names_that_come_twice(tmp_path, kind, second):
    fails("twice", unpack, KINDS[kind](tmp_path/kind, [("a/b.wav", b"1"), (second, b"2")]))
    assert nothing_left()


def no_writing(monkeypatch):
    def write(*_): raise AssertionError("it wrote")
    monkeypatch.setattr(dl, "write_member", write)


def test_a_zip_that_grows_a_thousandfold(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path/"a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as z, z.open("zeros.wav", "w") as f:
        for _ in range(1000): f.write(bytes(1 << 20))
    no_writing(monkeypatch)
    assert "1.05GB" in fails("do not trust it", unpack, tmp_path/"a.zip")
    assert nothing_left()


def test_a_tar_that_grows_a_thousandfold(tmp_path, monkeypatch):
    header = tar_info("zeros.wav", size=2*10**9).tobuf()
    with gzip.open(tmp_path/"a.tar.gz", "w") as f:  # that much is said, less is there: nothing of it is written
        f.write(header + bytes(1 << 20))
    no_writing(monkeypatch)
    fails("do not trust it", unpack, tmp_path/"a.tar.gz")
    sparse = tar_info("zeros.wav", tarfile.GNUTYPE_SPARSE, size=0).tobuf()
    sparse = bytearray(sparse); sparse[483:495] = b"%011o\0" % (3*10**9)
    sparse[148:156] = b" "*8; sparse[148:156] = b"%06o\0 " % sum(sparse)
    (tmp_path/"b.tar").write_bytes(sparse + bytes(1024))
    fails("do not trust it", unpack, tmp_path/"b.tar")


def test_a_zip_that_lies_about_its_size(tmp_path):
    "Ten bytes are announced, 50 MB come: no more than ten are ever written."
    archive = make_zip(tmp_path/"a.zip", {"a.wav": bytes(50_000_000)})
    data = bytearray(archive.read_bytes())
    for mark, place in ((b"PK\1\2", 24), (b"PK\3\4", 22)):
        at = data.index(mark) + place
        data[at:at + 4] = struct.pack("<I", 10)
    archive.write_bytes(data)
    fails("fetch it again", unpack, archive)
    assert nothing_left()


def test_a_tar_with_a_name_of_a_gigabyte(tmp_path):
    with gzip.open(tmp_path/"a.tar.gz", "w", 1) as f:
        f.write(tar_info("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=10**9).tobuf(tarfile.GNU_FORMAT))
        for _ in range(100): f.write(b"a"*10**6)
    fails("a name of a megabyte", unpack, tmp_path/"a.tar.gz")


def test_a_tar_with_a_negative_size(tmp_path):
    "With some versions of Python it is read for ever."
    header = bytearray(tar_info("a.wav").tobuf())
    header[124:136] = b"\xff"*10 + b"\xfe\x00"
    header[148:156] = b" "*8; header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path/"a.tar").write_bytes(header + bytes(2048))
    fails("fetch it again", unpack, tmp_path/"a.tar")


def test_too_large_for_the_disk_when_unpacked(tmp_path, monkeypatch):
    archives = [KINDS[k](tmp_path/k, MEMBERS) for k in ("a.zip", "a.tar")]
    monkeypatch.setattr(dl.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    for archive in archives: assert "1.00kB are free" in fails("are needed in", unpack, archive)
    assert nothing_left()


def test_an_encrypted_zip(tmp_path):
    data = bytearray(make_zip(tmp_path/"a.zip", {"a": b"b"}).read_bytes())
    for mark, place in ((b"PK\1\2", 8), (b"PK\3\4", 6)): data[data.index(mark) + place] |= 1
    (tmp_path/"a.zip").write_bytes(data)
    fails("is encrypted", unpack, tmp_path/"a.zip")


def test_names_in_a_zip_from_a_mac(tmp_path):
    "UTF-8 without the flag that says so."
    archive = make_zip(tmp_path/"a.zip", {"café.wav": b"1"})
    data = bytearray(archive.read_bytes())
    for mark, place in ((b"PK\1\2", 9), (b"PK\3\4", 7)): data[data.index(mark) + place] &= ~8
    archive.write_bytes(data)
    assert list(content(unpack(archive))) == ["café.wav"]


def test_no_archive(tmp_path):
    fails("check its name", unpack, tmp_path/"a.zip")
    for data in (b"", b"<!doctype html>", b"PK", b"PK\3\4", b"\x1f\x8b", zlib.compress(b"a"), bytes(100)):
        (tmp_path/"a.zip").write_bytes(data)
        fails("delete it, and fetch it again", unpack, tmp_path/"a.zip")
    assert nothing_left()


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_unpacking_leaves_nothing(tmp_path, monkeypatch, error):
    archive, real = make_zip(tmp_path/"a.zip", MEMBERS), dl.write_member
    def write(m, path, count):
        if m.name.endswith("b.wav"): raise error
        real(m, path, count)
    monkeypatch.setattr(dl, "write_member", write)
    with pytest.raises((error, UserError)): unpack(archive)
    assert nothing_left()
    monkeypatch.undo(); monkeypatch.setenv("WHISPER_TUTORIAL_CACHE", str(tmp_path/"cache"))
    assert content(unpack(archive)) == MEMBERS


def test_a_killed_unpacking_is_not_taken_for_whole(tmp_path):
    archive = make_zip(tmp_path/"a.zip", MEMBERS)
    code = "import os; from whisper_tutorial.data import download as d\nd.write_link = None\nreal = d.write_member\n" \
           "def w(m, path, count):\n real(m, path, count); os._exit(9)\nd.write_member = w\nd.unpack(%r)" % str(archive)
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert all(p.name.startswith(".") for p in cache_folder("unpacked").iterdir())
    assert content(unpack(archive)) == MEMBERS


def test_several_unpack_the_same_at_once(tmp_path):
    archive, found = make_zip(tmp_path/"a.zip", MEMBERS), []
    threads = [threading.Thread(target=lambda: found.append(unpack(archive))) for _ in range(4)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert len(found) == 4 and len(set(found)) == 1 and content(found[0]) == MEMBERS
    assert len(list(cache_folder("unpacked").iterdir())) == 1


def test_the_place_of_the_cache(monkeypatch):
    monkeypatch.setenv("WHISPER_TUTORIAL_CACHE", "~/x")
    assert cache_folder("a", "b") == Path.home()/"x"/"a"/"b"
    monkeypatch.delenv("WHISPER_TUTORIAL_CACHE")
    assert "whisper-tutorial" in str(cache_folder())
