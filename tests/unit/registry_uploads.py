# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The write half of the registry that is a stub, with repositories as registries have them.

A blob is in a repository only if it was pushed or mounted there; a manifest is taken only if all
that it names is there; tokens give what their scope says.
"""

from __future__ import annotations

import hashlib
import json
import re
import urllib.parse
from typing import Any

from registry_stub import Fault, RegistryStub, digest_of

_UPLOAD = re.compile(r"/v2/(?P<name>.+)/blobs/uploads/(?P<id>[^/?]*)(?:\?(?P<query>.*))?\Z")
_THING = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs)/(?P<what>[^/]+)\Z")


class Uploads:
    """`Uploads(stub)` makes a stub take what is pushed; `kept[repository]` is what it has there."""

    def __init__(self, stub: RegistryStub) -> None:
        self.stub = stub
        stub.writes = self
        self.kept: dict[str, set[str]] = {}
        self.open: dict[str, bytearray] = {}
        # With `swallow` nothing that is sent is kept or looked at.
        self.mounts = True
        self.location = ""
        self.remembers = True
        self.swallow = False
        self.tells_digest = True
        self.logins_at_uploads: list[str] = []

    def hold(self, repository: str, *digests: str) -> None:
        """Something that was there before."""
        self.kept.setdefault(repository, set()).update(digests)

    def take(self, handler: Any, fault: Fault | None) -> bool:
        """Answers a request; False for one that the read half is to answer."""
        upload = _UPLOAD.match(handler.path)
        thing = _THING.match(handler.path)
        match = upload or thing
        if not match:
            return False
        name = match["name"]
        if not self.is_allowed(handler, name):
            return True
        if upload:
            self.logins_at_uploads.append(handler.headers.get("Authorization", ""))
            self.upload(handler, upload, fault)
        elif handler.command == "PUT":
            self.put_manifest(handler, name, match["what"])
        elif thing:
            digest = self.stub.tags.get(f"{name}:{thing['what']}", thing["what"])
            if digest in self.kept.get(name, ()):
                return False
            handler.error(404, "UNKNOWN", "not in this repository")
        return True

    def is_allowed(self, handler: Any, name: str) -> bool:
        """Whether the token has the scope; answers with what is wanted if not."""
        if not self.stub.login or self.stub.scheme == "basic":
            return True
        writes = handler.command in ("POST", "PATCH", "PUT")
        wanted = [f"repository:{name}:{'pull,push' if writes else 'pull'}"]
        source = urllib.parse.parse_qs(handler.path.partition("?")[2]).get("from", [""])[0]
        wanted += [f"repository:{source}:pull"] if source else []
        token = handler.headers.get("Authorization", "").removeprefix("Bearer ")
        given = self.stub.scopes.get(token, set())
        if all(one in given or one.replace(":pull", ":pull,push") in given for one in wanted):
            return True
        handler.drain()
        realm = f'Bearer realm="{self.stub.url}/token",service="stub",scope="{" ".join(wanted)}"'
        handler.error(401, "DENIED", "insufficient scope", {"WWW-Authenticate": realm})
        return False

    def upload(self, handler: Any, match: re.Match[str], fault: Fault | None) -> None:
        name, query = match["name"], dict(urllib.parse.parse_qsl(match["query"] or ""))
        if handler.command == "POST":
            self.start(handler, name, query)
            return
        identity = match["id"]
        if identity not in self.open:
            handler.drain()
            handler.error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
            return
        content = self.open[identity]
        if handler.command == "GET":
            handler.answer(204, b"", {"Range": f"0-{max(0, len(content) - 1)}"})
        elif handler.command == "PATCH":
            self.patch(handler, name, identity, fault)
        else:
            del self.open[identity]
            found = f"sha256:{hashlib.sha256(content).hexdigest()}"
            if self.swallow:
                found = query["digest"]
            if found != query.get("digest"):
                handler.error(400, "DIGEST_INVALID", "provided digest did not match")
                return
            self.stub.content[found] = bytes(content)
            self.hold(name, found)
            handler.answer(201, b"", {"Location": f"/v2/{name}/blobs/{found}"})

    def start(self, handler: Any, name: str, query: dict[str, str]) -> None:
        digest = query.get("mount", "")
        if digest and self.mounts and digest in self.kept.get(query.get("from", ""), ()):
            self.hold(name, digest)
            handler.answer(201, b"", {"Location": f"/v2/{name}/blobs/{digest}"})
            return
        identity = f"upload-{len(self.logins_at_uploads)}"
        self.open[identity] = bytearray()
        handler.answer(202, b"", {"Location": self.place(name, identity)})

    def place(self, name: str, identity: str) -> str:
        return f"{self.location}/v2/{name}/blobs/uploads/{identity}?state=a%2Bb"

    def patch(self, handler: Any, name: str, identity: str, fault: Fault | None) -> None:
        left = int(handler.headers["Content-Length"])
        content = self.open[identity]
        offset = int(handler.headers.get("Content-Range", "0").partition("-")[0])
        if offset != len(content):
            handler.drain()
            handler.error(416, "RANGE_INVALID", "that is not where it stands")
            return
        if fault and fault.cut_after is not None:
            content += handler.rfile.read(min(fault.cut_after, left))
            if not self.remembers:
                del self.open[identity]
            handler.cut()
            return
        while left:
            chunk = handler.rfile.read(min(left, 1 << 20))
            left -= len(chunk)
            content += b"" if self.swallow else chunk
        handler.answer(202, b"", {"Location": self.place(name, identity)})

    def put_manifest(self, handler: Any, name: str, what: str) -> None:
        content = handler.rfile.read(int(handler.headers["Content-Length"]))
        document = json.loads(content)
        parts = [*document.get("layers", []), *document.get("manifests", [])]
        parts += [document["config"]] if "config" in document else []
        lacking = [one["digest"] for one in parts if one["digest"] not in self.kept.get(name, ())]
        if lacking:
            handler.error(400, "MANIFEST_BLOB_UNKNOWN", f"unknown: {lacking[0]}")
            return
        digest = digest_of(content)
        self.stub.content[digest] = content
        self.stub.types[digest] = handler.headers["Content-Type"]
        self.hold(name, digest)
        if ":" not in what:
            self.stub.tags[f"{name}:{what}"] = digest
        told = digest if self.tells_digest else f"sha256:{'0' * 64}"
        handler.answer(201, b"", {"Docker-Content-Digest": told})
