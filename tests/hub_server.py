"""A server on this machine that answers as the real hub does, and processes, or this one, that take it for the hub."""

import base64
import contextlib
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Collection, Iterator
from pathlib import Path
from unittest import mock

REPOSITORY = Path(__file__).resolve().parents[1]
TOKEN = "hf_test"  # the one token that may create repositories and upload


class Hub(http.server.ThreadingHTTPServer):
    """Serves `files`, by `owner/name/path`; `fetched` records what was downloaded, `commits` what was uploaded.

    Of the files in `cut` it sends the first half only; for those in `stored_elsewhere` it points to a store of chunks
    (Xet), which refuses. Uploads are kept in the folder `uploads`; those to repositories in `full` fail.
    """

    def __init__(
        self,
        files: dict[str, Path],
        cut: Collection[str] = (),
        stored_elsewhere: Collection[str] = (),
        uploads: Path | None = None,
        full: Collection[str] = (),
    ):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.fetched = dict(files), []
        self.cut, self.stored_elsewhere, self.uploads, self.full = cut, stored_elsewhere, uploads, full
        self.repositories = {"/".join(name.split("/")[:2]) for name in files}
        self.private: set[str] = set()
        self.commits: list[dict] = []

    @property
    def head(self) -> str:
        """Hash of the newest commit."""
        return f"{len(self.commits):040x}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def do_POST(self):
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urllib.parse.urlsplit(self.path).path
        if path == "/api/validate-yaml":
            self.send_json({"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.refuse(401, "")
        elif path == "/api/repos/create":
            self.create(json.loads(content))
        elif path.endswith("/preupload/main"):
            files = json.loads(content)["files"]
            self.send_json(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        else:
            self.commit(path.removeprefix("/api/models/").removesuffix("/commit/main"), content)

    def create(self, wanted: dict):
        repository = f"{wanted['organization']}/{wanted['name']}"
        if repository in self.server.repositories:
            self.send_json({"url": f"{self.server.url}/{repository}"}, 409)
            return
        self.server.repositories.add(repository)
        if wanted.get("visibility") == "private" or wanted.get("private"):
            self.server.private.add(repository)
        self.send_json({"url": f"{self.server.url}/{repository}"})

    def commit(self, repository: str, content: bytes):
        if repository in self.server.full:
            self.send_json({"error": "storage quota exceeded"}, 403)
            return
        lines = [json.loads(line) for line in content.splitlines()]
        for file in (line["value"] for line in lines if line["key"] == "file"):
            path = self.server.uploads / repository / file["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(file["content"]))
            self.server.files[f"{repository}/{file['path']}"] = path
        self.server.commits.append(lines[0]["value"])
        url = f"{self.server.url}/{repository}/commit/{self.server.head}"
        self.send_json({"success": True, "commitOid": self.server.head, "commitUrl": url, "hookOutput": ""})

    def answer(self, body: bool):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        if path.startswith("/store"):
            self.answer_as_store(path)
        elif path.startswith("/api/models/"):
            self.describe(path.removeprefix("/api/models/"))
        else:
            repository, _, file = path.lstrip("/").partition("/resolve/")
            self.send_file(repository, file.partition("/")[2], body)

    def describe(self, path: str):
        """Answer what a repository's newest commit is, or which files it has."""
        repository = "/".join(path.split("/")[:2])
        if not self.may_read(repository):
            return
        if "/tree/" not in path:
            self.send_json({"id": repository, "sha": self.server.head})
            return
        names = [name for name in self.server.files if name.startswith(f"{repository}/")]
        sizes = {name.removeprefix(f"{repository}/"): self.server.files[name].stat().st_size for name in names}
        self.send_json([{"type": "file", "path": file, "size": size, "oid": "0"} for file, size in sizes.items()])

    def may_read(self, repository: str) -> bool:
        if repository == "them/gated":
            self.refuse(403, "GatedRepo")
        elif repository not in self.server.repositories:
            self.refuse(401, "RepoNotFound")
        else:
            return True
        return False

    def send_file(self, repository: str, file: str, body: bool):
        if not self.may_read(repository):
            return
        name = f"{repository}/{file}"
        path = self.server.files.get(name)
        if path is None:
            self.refuse(404, "EntryNotFound")
            return
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("X-Repo-Commit", self.server.head)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        if name in self.server.stored_elsewhere:
            self.send_header("X-Xet-Hash", "0" * 64)
            self.send_header("X-Xet-Refresh-Route", f"{self.server.url}/store")
        self.end_headers()
        if body:
            self.server.fetched.append(name)
            self.wfile.write(content[: len(content) // 2] if name in self.server.cut else content)

    def answer_as_store(self, path: str):
        self.send_response(200 if path == "/store" else 400)
        self.send_header("X-Xet-Cas-Url", f"{self.server.url}/store")
        self.send_header("X-Xet-Access-Token", "token")
        self.send_header("X-Xet-Token-Expiration", str(int(time.time()) + 3600))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_json(self, content: object, status: int = 200):
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def refuse(self, status: int, code: str):
        self.send_response(status)
        self.send_header("X-Repo-Commit", self.server.head)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def serve(files: dict[str, Path], **options) -> Iterator[tuple[Hub, str]]:
    """Run a hub of these files, with the options of `Hub`; yields it and its URL."""
    with Hub(files, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server, server.url
        finally:
            server.shutdown()
            thread.join()


def python(
    cache: Path, endpoint: str, *arguments: object, offline: bool = False, **variables: str
) -> subprocess.CompletedProcess:
    """Run a process whose hub is `endpoint`: the hub's library reads the environment once, when it is imported."""
    kept = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    env = {**kept, "HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "PYTHONPATH": str(REPOSITORY)}
    env |= {"HF_HUB_OFFLINE": str(int(offline)), **variables}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=240)


@contextlib.contextmanager
def hub_of_this_process(cache: Path, endpoint: str, offline: bool = False) -> Iterator[None]:
    """Let `endpoint` be this process's hub: another process would import everything again, which takes seconds."""
    from huggingface_hub import constants, utils

    values = {"ENDPOINT": endpoint, "HF_HUB_CACHE": str(cache / "hub"), "HF_HUB_OFFLINE": offline}
    values["HUGGINGFACE_CO_URL_TEMPLATE"] = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, endpoint)
    values["HF_TOKEN_PATH"] = str(cache / "token")
    forget_connections = getattr(utils, "close_session", None) or utils.reset_sessions  # the name until version 1
    with mock.patch.multiple(constants, **values), mock.patch.dict(os.environ, no_proxy="127.0.0.1"):
        forget_connections()
        try:
            yield
        finally:
            forget_connections()
