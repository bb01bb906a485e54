"""A hub on this machine that takes uploads: as much of the protocol as `huggingface_hub` needs for a commit with large files."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.served import served

TOKEN = "hf_aVerySecretTokenOfThisTest"
COMMIT = "c0ffee" + "0" * 34


class UploadHub:
    """What was uploaded: repository -> path -> content; `made`: the requests that made repositories; `tokens` that were sent."""

    def __init__(self) -> None:
        self.address = ""
        self.made: list[dict[str, Any]] = []
        self.files: dict[str, dict[str, bytes]] = {}
        self.tokens: set[str] = set()
        self.objects: dict[str, bytes] = {}
        self.refuses = False


@contextmanager
def upload_hub() -> Iterator[UploadHub]:
    """Serve within the block. Files above 1 KB go the way of large files."""
    hub = UploadHub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_POST(self) -> None:
            body = self._body()
            hub.tokens.add(self.headers.get("Authorization", "").removeprefix("Bearer "))
            path = self.path.partition("?")[0]
            if hub.refuses:
                self._send(403, {"error": f"no right to write with {TOKEN}"})
            elif path == "/api/repos/create":
                wanted = json.loads(body)
                hub.made.append(wanted)
                name = f"{wanted['organization']}/{wanted['name']}"
                hub.files.setdefault(name, {})
                self._send(200, {"url": f"{hub.address}/{name}", "id": name})
            elif path == "/api/validate-yaml":
                self._send(200, {"errors": [], "warnings": []})
            elif "/preupload/" in path:
                files = [
                    {"path": one["path"], "uploadMode": "lfs" if one["size"] > 1000 else "regular", "shouldIgnore": False}
                    for one in json.loads(body)["files"]
                ]
                self._send(200, {"files": files})
            elif path.endswith("/info/lfs/objects/batch"):
                objects = [
                    {**one, "actions": {"upload": {"href": f"{hub.address}/store/{one['oid']}"}}}
                    for one in json.loads(body)["objects"]
                ]
                self._send(200, {"transfer": "basic", "objects": objects})
            elif "/commit/" in path:
                name = "/".join(path.split("/")[3:5])
                for line in map(json.loads, body.splitlines()):
                    value = line["value"]
                    if line["key"] == "file":
                        hub.files[name][value["path"]] = base64.b64decode(value["content"])
                    if line["key"] == "lfsFile":
                        hub.files[name][value["path"]] = hub.objects[value["oid"]]
                url = f"{hub.address}/{name}/commit/{COMMIT}"
                self._send(200, {"commitUrl": url, "commitOid": COMMIT, "hookOutput": ""})
            else:
                self._send(404, {"error": path})

        def do_PUT(self) -> None:
            content = self._body()
            oid = self.path.rpartition("/")[2]
            assert hashlib.sha256(content).hexdigest() == oid
            hub.objects[oid] = content
            self._send(200, {})

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts: list[bytes] = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def do_GET(self) -> None:
            self._send(404, {"error": "not here"})

        do_HEAD = do_GET

        def _send(self, status: int, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    with served(Handler) as hub.address:
        yield hub
