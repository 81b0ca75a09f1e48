"""A stand-in for the Hugging Face hub on localhost, for the real huggingface_hub.

It speaks what a download needs, as the hub answers it (huggingface_hub 1.32 and 2.4, `file_download.py`, `utils/_http.py`,
`hf_api.py`): a repository at a revision, its tree in pages, files by redirects (small ones within the hub, large ones to
another host, with the commit and the size in the headers of the redirect), parts of a file, and errors by their codes.
It writes nothing into anybody's cache. `broken` cuts transfers short.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

PAGE = 10  # entries of a tree in one answer
TOKEN = "hf_granted"
_LARGE = (".safetensors", ".bin", ".ckpt", ".model", ".msgpack", ".onnx")  # what the hub keeps in LFS


@dataclass
class Repo:
    """One repository: folders by commit, commits by branch. Reading a `gated` one needs TOKEN; a `private` one is hidden."""

    commits: dict[str, Path] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def files(self, commit: str) -> dict[str, Path]:
        root = self.commits[commit]
        return {p.relative_to(root).as_posix(): p for p in sorted(root.rglob("*")) if p.is_file()}


class StandIn:
    """The hub. `asked` lists the paths that were requested, `sent` the names of the files that were sent whole."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.asked: list[str] = []
        self.sent: list[str] = []
        self.broken: dict[
            str, list[int]
        ] = {}  # end of a file's name -> for each transfer, the bytes after which it ends
        self.down = False  # every request is answered with 503
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.cdn = f"http://localhost:{self.port}/cdn"

    def publish(self, hub_id: str, folder: Path, branch: str = "main", **facts: bool) -> str:
        """Make the folder's files the newest commit of a branch, and return that commit."""
        repo = self.repos.setdefault(hub_id, Repo(**facts))
        digest = hashlib.sha1()
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
        commit = digest.hexdigest()
        repo.commits[commit] = folder
        repo.branches[branch] = commit
        return commit

    @contextlib.contextmanager
    def serving(self) -> Iterator[StandIn]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()


def _handler(hub: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            url = urlsplit(self.path)
            path = unquote(url.path)
            hub.asked.append(f"{self.command} {path}")
            if hub.down:
                self._fail(503, "", "Service Unavailable")
            elif path.startswith("/cdn/"):
                self._send_file(Path("/" + path.removeprefix("/cdn/")))
            elif path.startswith("/api/resolve-cache/models/"):
                owner, name, commit, file = path.removeprefix("/api/resolve-cache/models/").split("/", 3)
                self._send_file(hub.repos[f"{owner}/{name}"].files(commit)[file])
            elif path.startswith("/api/models/"):
                self._api(path.removeprefix("/api/models/").split("/"), parse_qs(url.query))
            elif "/resolve/" in path:
                self._resolve(path)
            else:
                self._fail(404, "", "Not Found")

        def _repo(self, hub_id: str, reading: bool) -> Repo | None:
            """The repository; None after a refusal. The hub tells nobody whether a private one exists."""
            repo = hub.repos.get(hub_id)
            token = self.headers.get("authorization", "").removeprefix("Bearer ")
            if repo is None or (repo.private and token != TOKEN):
                self._fail(401 if not token else 404, "RepoNotFound", "Invalid username or password.")
                return None
            if reading and repo.gated and token != TOKEN:
                self._fail(403 if token else 401, "GatedRepo", f"Access to model {hub_id} is restricted.")
                return None
            return repo

        def _commit(self, repo: Repo, revision: str) -> str | None:
            commit = repo.branches.get(revision, revision)
            if commit in repo.commits:
                return commit
            self._fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None

        def _api(self, words: list[str], query: dict[str, list[str]]) -> None:
            """OWNER/NAME, OWNER/NAME/revision/REV or OWNER/NAME/tree/REV."""
            hub_id, what = "/".join(words[:2]), (words[2] if len(words) > 2 else "revision")
            repo = self._repo(hub_id, reading=what == "tree")
            commit = repo and self._commit(repo, "/".join(words[3:]) or "main")
            if repo is None or commit is None:
                return
            files = repo.files(commit)
            if what == "revision":
                siblings = [{"rfilename": name} for name in files]
                self._send_json({"_id": "0", "id": hub_id, "modelId": hub_id, "sha": commit, "siblings": siblings})
                return
            start = int(query.get("cursor", ["0"])[0])
            page = list(files.items())[start : start + PAGE]
            more = start + PAGE < len(files)
            link = f'<{hub.address}{quote(urlsplit(self.path).path)}?recursive=true&cursor={start + PAGE}>; rel="next"'
            self._send_json([_entry(name, file) for name, file in page], {"Link": link} if more else {})

        def _resolve(self, path: str) -> None:
            hub_id, _, rest = path.removeprefix("/").partition("/resolve/")
            revision, _, name = rest.partition("/")
            repo = self._repo(hub_id, reading=True)
            commit = repo and self._commit(repo, unquote(revision))
            if repo is None or commit is None:
                return
            file = repo.files(commit).get(name)
            if file is None:
                self._fail(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
                return
            headers = {"X-Repo-Commit": commit, "ETag": f'"{_sha(file, "sha1")}"'}
            if name.endswith(_LARGE):
                headers |= {"X-Linked-Size": str(file.stat().st_size), "X-Linked-Etag": f'"{_sha(file, "sha256")}"'}
                headers["Location"] = hub.cdn + quote(str(file))
                self._send(302, b"", headers)
            else:
                headers["Location"] = f"/api/resolve-cache/models/{hub_id}/{commit}/{quote(name)}"
                self._send(307, b"", headers)

        def _send_file(self, file: Path) -> None:
            content = file.read_bytes()
            start = int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
            headers = {"ETag": f'"{_sha(file, "sha256")}"', "Accept-Ranges": "bytes"}
            # Small files keep the commit's header in the last answer of their redirects.
            if "resolve-cache" in self.path:
                headers |= {"X-Repo-Commit": self.path.split("/")[6], "ETag": f'"{_sha(file, "sha1")}"'}
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            cuts = next((cuts for end, cuts in hub.broken.items() if str(file).endswith(end)), [])
            cut = cuts.pop(0) if cuts and self.command == "GET" else None
            self._send(206 if start else 200, content[start:], headers, cut)
            if self.command == "GET" and cut is None:
                hub.sent.append(file.name)

        def _send_json(self, value: Any, headers: dict[str, str] | None = None) -> None:
            self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

        def _fail(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
            named = {"X-Error-Code": code, "X-Error-Message": message} if code else {}
            self._send(status, json.dumps({"error": message}).encode(), {**named, **(headers or {})})

        def _send(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            self.wfile.write(body[:cut])
            if cut is not None:
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(2)

    return Handler


def _entry(name: str, file: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "oid": _sha(file, "sha1"), "size": file.stat().st_size, "path": name}
    if name.endswith(_LARGE):
        entry["lfs"] = {"oid": _sha(file, "sha256"), "size": entry["size"], "pointerSize": 134}
    return entry


def _sha(file: Path, kind: str) -> str:
    return hashlib.new(kind, file.read_bytes()).hexdigest()
