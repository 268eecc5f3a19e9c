"""Web servers on this machine that misbehave on demand: what the tests of downloads need.

`Server` is general. `server.routes[path]` is an `Answer`, or a function of a `Request` that gives one; `server.faults[path]` are answers that come
first, each once; `server.log` holds every request with its headers and the bytes that it was sent. `Zenodo` is a `Server` with the routes of
Zenodo. Use them in a `with` block.
"""
import hashlib, json, re, socket, threading
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlsplit


@dataclass
class Answer:
    body: bytes = b""
    status: int = 200
    headers: dict = field(default_factory=dict)
    cut: int | None = None  # break the connection after so many bytes of the body
    ranges: bool = True     # whether `Range` is understood; a server that does not sends everything
    length: bool = True     # whether `Content-Length` is said


@dataclass
class Request:
    method: str
    path: str
    query: dict       # name → value
    headers: dict     # lower-case name → value
    body: bytes
    sent: int = 0     # bytes of the body that were sent
    status: int = 0


def as_json(obj, status=200, **headers):
    return Answer(json.dumps(obj).encode(), status, {"Content-Type": "application/json", **headers})


class Server:
    "with Server() as server: server.routes['/a'] = Answer(b'abc'); server.url is its address"

    def __init__(self, host="127.0.0.1"):
        self.routes, self.faults, self.log, self.host = {}, defaultdict(list), [], host

    def __enter__(self):
        self.httpd = ThreadingHTTPServer((self.host, 0), self._handler())
        self.httpd.daemon_threads = True
        self.url = f"http://{self.host}:{self.httpd.server_port}"
        self.thread = threading.Thread(target=self.httpd.serve_forever, kwargs={"poll_interval": .02}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.httpd.shutdown(); self.httpd.server_close(); self.thread.join()

    def requests(self, path=None, method=None):
        return [r for r in self.log if path in (None, r.path) and method in (None, r.method)]

    def sent(self, path=None): return sum(r.sent for r in self.requests(path))  # bytes

    def answer(self, request):
        "What is answered; override it, or fill `routes`."
        route = self.routes.get(request.path, Answer(b'{"message": "not found"}', 404))
        return route(request) if callable(route) else route

    def _handler(server):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_): pass

            def do_GET(self):
                url = urlsplit(self.path)
                request = Request(self.command, url.path, {k: v[0] for k, v in parse_qs(url.query).items()},
                                  {k.lower(): v for k, v in self.headers.items()},
                                  self.rfile.read(int(self.headers.get("Content-Length") or 0)))
                server.log.append(request)
                faults = server.faults[request.path]
                answer = faults.pop(0) if faults else server.answer(request)
                if callable(answer): answer = answer(request)
                self.send(request, answer)

            do_HEAD = do_POST = do_PUT = do_GET

            def send(self, request, answer):
                status, headers, body = answer.status, dict(answer.headers), answer.body
                wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
                if wanted and answer.ranges and status == 200:
                    start, end = int(wanted[1]), min(int(wanted[2] or len(body)) + bool(wanted[2]), len(body))
                    headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(body)}" if start < len(body) else f"bytes */{len(body)}"
                    status, body = (206, body[start:end]) if start < len(body) else (416, b"")
                request.status = status
                self.send_response(status)
                for name, value in headers.items(): self.send_header(name, value)
                if answer.length: self.send_header("Content-Length", str(len(body)))
                else: self.send_header("Connection", "close"); self.close_connection = True
                self.end_headers()
                if request.method == "HEAD": return
                cut = len(body) if answer.cut is None else answer.cut
                try:
                    for start in range(0, min(cut, len(body)), 1 << 16):
                        part = body[start:min(start + (1 << 16), cut)]
                        self.wfile.write(part); request.sent += len(part)
                    self.wfile.flush()
                    if answer.cut is not None: self.close_connection = True; self.connection.shutdown(socket.SHUT_RDWR)
                except OSError: self.close_connection = True  # the other side has hung up
        return Handler


@dataclass
class Record:
    "A record of Zenodo. `restricted`: its files need the owner's `token`, or the `share` token of a link."
    files: dict                # name → bytes
    restricted: bool = False
    licence: str | None = "cc-by-4.0"
    title: str = "A corpus"
    checksums: dict = field(default_factory=dict)  # name → what is said in place of the right one
    sizes: dict = field(default_factory=dict)
    latest: str | None = None  # this id stands for all versions: the interface knows only its /versions/latest
    content_at: str | None = None  # the address of another server to which the content is redirected
    links_at: str | None = None    # the address of another server to which the links of the files point


class Zenodo(Server):
    "with Zenodo({'1342401': Record({'a.zip': b'…'})}, token='…', share='…') as zenodo: …"

    def __init__(self, records, token=None, share=None, host="127.0.0.1"):
        super().__init__(host)
        self.records, self.token, self.share, self.secure = records, token, share, "; HttpOnly; Path=/"

    def may_read(self, request, record):
        if not record.restricted: return True
        given = request.headers.get("authorization")
        return (self.token and given == f"Bearer {self.token}") or "session=shared" in request.headers.get("cookie", "")

    def answer(self, request):
        given = request.headers.get("authorization")
        if given and given != f"Bearer {self.token}": return as_json({"message": "The token has expired or is invalid."}, 401)
        if found := re.fullmatch(r"/records/(\d+)", request.path):  # the page for people: a share link ends here
            page = Answer(b"<!doctype html><title>Record</title>", headers={"Content-Type": "text/html"})
            if self.share and request.query.get("token") == self.share: page.headers["Set-Cookie"] = "session=shared" + self.secure
            return page if found[1] in self.records else Answer(b"", 404)
        found = re.fullmatch(r"/api/records/(\d+)/versions/latest", request.path)
        if found and (record := self.records.get(found[1])):
            return Answer(b"", 301, {"Location": f"{self.url}/api/records/{record.latest or found[1]}"})
        found = re.fullmatch(r"/api/records/(\d+)(/files(?:/(.+)/content)?)?", request.path)
        record = found and self.records.get(found[1])
        if not record or record.latest: return as_json({"status": 404, "message": "The persistent identifier does not exist."}, 404)
        if not found[2]: return as_json(self.metadata(found[1], record, self.may_read(request, record)))
        if not self.may_read(request, record): return as_json({"status": 403, "message": "Permission denied."}, 403)
        if not found[3]: return as_json({"enabled": True, "entries": self.entries(found[1], record)})
        by_name = {quote(name): name for name in record.files}
        if found[3] not in by_name: return as_json({"status": 404, "message": "no such file"}, 404)
        if record.content_at: return Answer(b"", 302, {"Location": f"{record.content_at}/{found[3]}"})
        return Answer(record.files[by_name[found[3]]], headers={"Content-Type": "application/octet-stream"})

    def entries(self, ident, record):
        at = record.links_at or f"{self.url}/api/records/{ident}/files"
        return [{"key": name, "size": record.sizes.get(name, len(data)),
                 "checksum": record.checksums.get(name, "md5:" + hashlib.md5(data).hexdigest()),
                 "links": {"self": f"{at}/{quote(name)}", "content": f"{at}/{quote(name)}/content"}}
                for name, data in record.files.items()]

    def metadata(self, ident, record, may_read):
        about = {"id": int(ident), "doi": f"10.5281/zenodo.{ident}", "title": record.title,
                 "metadata": {"title": record.title, "access_right": "restricted" if record.restricted else "open"},
                 "links": {"self_html": f"{self.url}/records/{ident}"}}
        if record.licence: about["metadata"]["license"] = {"id": record.licence}
        if may_read: about["files"] = self.entries(ident, record)
        return about
