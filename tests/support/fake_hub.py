"""A hub on this machine: repositories with files, as much of the protocol as fetching an adapter takes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote

from tests.support.served import served

COMMIT = "c0ffee" + "0" * 34
OLDER = "0ddba11" + "0" * 33

Repositories = Mapping[str, Mapping[str, Mapping[str, bytes]]]
"""owner/name -> commit -> path -> content. `main` is `COMMIT`."""


class FakeHub:
    """Where it is, and which paths were asked for."""

    def __init__(self) -> None:
        self.address = ""
        self.asked: list[tuple[str, str]] = []

    @property
    def fetched(self) -> list[str]:
        """The paths in repositories whose content was sent."""
        return [
            path.partition("/resolve/")[2].partition("/")[2]
            for method, path in self.asked
            if method == "GET" and "/resolve/" in path
        ]


@contextmanager
def fake_hub(repositories: Repositories) -> Iterator[FakeHub]:
    """Serve the repositories within the block."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(send=False)

        def do_GET(self) -> None:
            self._answer(send=True)

        def _answer(self, *, send: bool) -> None:
            path = unquote(self.path.partition("?")[0]).strip("/")
            hub.asked.append((self.command, path))
            status, headers, body = _respond(repositories, path)
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if send:
                self.wfile.write(body)

    with served(Handler) as hub.address:
        yield hub


def _respond(repositories: Repositories, path: str) -> tuple[int, dict[str, str], bytes]:
    api = path.startswith("api/models/")
    if api:
        repository, _, revision = path.removeprefix("api/models/").partition("/revision/")
        file = ""
    else:
        repository, _, rest = path.partition("/resolve/")
        revision, _, file = rest.partition("/")
    commits = repositories.get(repository)
    if commits is None:
        return 401 if api else 404, {"X-Error-Code": "RepoNotFound"}, b""
    commit = COMMIT if revision in {"", "main"} else OLDER if revision == "older" else revision
    if commit not in commits:
        return 404, {"X-Error-Code": "RevisionNotFound"}, b""
    if api:
        told = {"id": repository, "sha": commit, "siblings": [{"rfilename": name} for name in commits[commit]]}
        return 200, {"Content-Type": "application/json"}, json.dumps(told).encode()
    if file not in commits[commit]:
        return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
    content = commits[commit][file]
    return 200, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit}, content
