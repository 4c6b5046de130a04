"""A server on this machine that answers as the real hub does, and processes that take it for the hub."""

import contextlib
import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.ThreadingHTTPServer):
    """Serves `files` by `owner/name/path`; `fetched` records what was downloaded.

    Of the files in `cut` it sends the first half only, those in `stored_elsewhere` it says to fetch from a store of
    chunks (Xet), which refuses.
    """

    def __init__(self, files: dict[str, Path], cut: Collection[str] = (), stored_elsewhere: Collection[str] = ()):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.fetched = files, []
        self.cut, self.stored_elsewhere = cut, stored_elsewhere


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        if self.path.startswith("/store"):
            self.answer_as_store()
            return
        repository, _, file = self.path.lstrip("/").partition("/resolve/main/")
        name = f"{repository}/{file}"
        path = self.server.files.get(name)
        if repository == "them/gated":
            self.refuse(403, "GatedRepo")
        elif not any(known.startswith(f"{repository}/") for known in self.server.files):
            self.refuse(401, "RepoNotFound")
        elif path is None:
            self.refuse(404, "EntryNotFound")
        else:
            content = path.read_bytes()
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            if name in self.server.stored_elsewhere:
                self.send_header("X-Xet-Hash", "0" * 64)
                self.send_header("X-Xet-Refresh-Route", f"http://127.0.0.1:{self.server.server_port}/store")
            self.end_headers()
            if body:
                self.server.fetched.append(name)
                self.wfile.write(content[: len(content) // 2] if name in self.server.cut else content)

    def answer_as_store(self):
        self.send_response(200 if self.path == "/store" else 400)
        self.send_header("X-Xet-Cas-Url", f"http://127.0.0.1:{self.server.server_port}/store")
        self.send_header("X-Xet-Access-Token", "token")
        self.send_header("X-Xet-Token-Expiration", str(int(time.time()) + 3600))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def refuse(self, status: int, code: str):
        self.send_response(status)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def serve(files: dict[str, Path], **trouble: Collection[str]) -> Iterator[tuple[Hub, str]]:
    with Hub(files, **trouble) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def python(cache: Path, endpoint: str, *arguments: object, offline: bool = False) -> subprocess.CompletedProcess:
    """A process whose hub is `endpoint`, as the hub's library reads this once when it is imported."""
    kept = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    env = {**kept, "HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "PYTHONPATH": str(REPOSITORY)}
    env["HF_HUB_OFFLINE"] = str(int(offline))
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=240)
