# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry in a thread, which serves made-up images and can be told to misbehave.

It speaks the read half of the OCI distribution specification, over plain http on the loopback
interface, or over TLS when it is given a context.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
import random
import re
import socket
import ssl
import struct
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable

OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker."
OCI_INDEX = f"{OCI}index.v1+json"
OCI_MANIFEST = f"{OCI}manifest.v1+json"
DOCKER_LIST = f"{DOCKER}distribution.manifest.list.v2+json"
DOCKER_MANIFEST = f"{DOCKER}distribution.manifest.v2+json"
TYPES = {
    True: (OCI_MANIFEST, f"{OCI}config.v1+json", f"{OCI}layer.v1.tar+gzip"),
    False: (
        DOCKER_MANIFEST,
        f"{DOCKER}container.image.v1+json",
        f"{DOCKER}image.rootfs.diff.tar.gzip",
    ),
}
_PATH = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs)/(?P<what>[^/]+)\Z")

Json = dict[str, Any]


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def layer_of(seed: str, size: int = 3000) -> tuple[bytes, str]:
    """A layer as it is served (gzip), and its diff ID; one seed always gives one layer."""
    content = random.Random(seed).randbytes(size)
    return gzip.compress(content, mtime=0), digest_of(content)


@dataclass
class Fault:
    """What the stub does instead, `times` times, for requests whose line contains `where`."""

    where: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    times: int = 1
    cut_after: int | None = None
    spoil: bool = False
    stall: float = 0.0
    act: Callable[[Any], None] | None = None


@dataclass
class Seen:
    """One request that the stub got."""

    line: str
    headers: dict[str, str]

    @property
    def login(self) -> str:
        return self.headers.get("Authorization", "")


@dataclass
class Synthetic:
    """A blob of any size that takes no memory: one block, again and again."""

    block: bytes
    count: int

    @property
    def size(self) -> int:
        return len(self.block) * self.count

    def digest(self) -> str:
        sha = hashlib.sha256()
        for _index in range(self.count):
            sha.update(self.block)
        return f"sha256:{sha.hexdigest()}"

    def read(self, start: int) -> Iterator[bytes]:
        index, offset = divmod(start, len(self.block))
        for number in range(index, self.count):
            yield self.block[offset:] if number == index else self.block


class RegistryStub:
    """`with RegistryStub() as stub:`; `stub.name` is the registry's name in references."""

    def __init__(
        self,
        login: tuple[str, str] | None = None,
        scheme: str = "bearer",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`login`: what is asked for, with `scheme` basic or bearer; None is open to all."""
        self.login = login
        self.scheme = scheme
        self.content: dict[str, bytes | Synthetic] = {}
        self.types: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.tokens: set[str] = set()
        self.scopes: dict[str, set[str]] = {}
        self.writes: Any = None
        self.ranges = True
        self.digest_header = True
        self.serves_head = True
        self.realm_host: str | None = None
        self.identity_token = ""
        self.prefix = ""
        self.page = 1000
        self.most = 1000
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.tls = tls
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.name}"

    def __enter__(self) -> RegistryStub:
        self._thread.start()
        return self

    def __exit__(self, *_unused: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def connections(self) -> int:
        """How many connections were made to it."""
        return self._server.connections

    def asked(self, part: str) -> list[Seen]:
        """The requests whose line contains this."""
        return [seen for seen in self.seen if part in seen.line]

    def fault(self, where: str, **how: Any) -> None:
        """Misbehaves once (or `times` times) for requests whose line contains `where`."""
        self.faults.append(Fault(where, **how))

    def add_blob(self, content: bytes, media_type: str) -> Json:
        """Keeps a blob and returns its descriptor."""
        digest = digest_of(content)
        self.content[digest] = content
        self.types[digest] = media_type
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def add_image(
        self,
        tag: str | None,
        layers: list[str],
        platform: str = "linux/amd64",
        oci: bool = True,
        **extra: Any,
    ) -> Json:
        """An image of layers made from seeds; `tag` as `repository:tag`. Returns its descriptor."""
        kind, config_type, layer_type = TYPES[oci]
        made = [layer_of(seed) for seed in layers]
        os_name, architecture, variant = (*platform.split("/"), "")[:3]
        settings: Json = {"os": os_name, "architecture": architecture}
        if variant:
            settings["variant"] = variant
        settings["rootfs"] = {"type": "layers", "diff_ids": [diff_id for _blob, diff_id in made]}
        config = self.add_blob(json.dumps({**settings, "seeds": layers}).encode(), config_type)
        manifest = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": config,
            "layers": [self.add_blob(blob, layer_type) for blob, _diff_id in made],
            **extra,
        }
        return self.add_manifest(tag, manifest, kind)

    def add_manifest(self, tag: str | None, document: Json, media_type: str) -> Json:
        """Keeps any document as a manifest."""
        descriptor = self.add_blob(json.dumps(document, indent=3).encode(), media_type)
        if tag:
            self.tags[tag] = descriptor["digest"]
        return descriptor

    def add_index(self, tag: str, images: dict[str, list[str]], oci: bool = True) -> Json:
        """An index of several platforms, with an attestation for each, as buildx makes them."""
        entries = []
        for platform, layers in images.items():
            os_name, architecture, variant = (*platform.split("/"), "")[:3]
            stated = {"os": os_name, "architecture": architecture}
            if variant:
                stated["variant"] = variant
            image = self.add_image(None, layers, platform, oci)
            entries.append({**image, "platform": stated})
        for entry in list(entries):
            entries.append(self._attestation(entry["digest"]))
        kind = OCI_INDEX if oci else DOCKER_LIST
        document = {"schemaVersion": 2, "mediaType": kind, "manifests": entries}
        return self.add_manifest(tag, document, kind)

    def _attestation(self, digest: str) -> Json:
        image = self.add_image(None, [f"attestation of {digest}"], "unknown/unknown")
        annotations = {
            "vnd.docker.reference.digest": digest,
            "vnd.docker.reference.type": "attestation-manifest",
        }
        platform = {"os": "unknown", "architecture": "unknown"}
        return {**image, "platform": platform, "annotations": annotations}

    def add_big_image(self, tag: str, mebibytes: int) -> Json:
        """An image with one layer of this size, which takes one MiB of memory."""
        blob = Synthetic(random.Random(tag).randbytes(1 << 20), mebibytes)
        digest = blob.digest()
        self.content[digest] = blob
        settings = {
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [digest]},
        }
        config = self.add_blob(json.dumps(settings).encode(), f"{OCI}config.v1+json")
        layer = {"mediaType": f"{OCI}layer.v1.tar", "digest": digest, "size": blob.size}
        manifest = {"schemaVersion": 2, "config": config, "layers": [layer]}
        return self.add_manifest(tag, {**manifest, "mediaType": OCI_MANIFEST}, OCI_MANIFEST)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    connections = 0

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Counts: a client may ask nothing on a connection, as after a TLS hello in vain."""
        self.connections += 1
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away, or speak TLS to it, are what the tests are about."""


def _handler(stub: RegistryStub) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        pass

    Handler.stub = stub
    return Handler


class _Handler(BaseHTTPRequestHandler):
    stub: RegistryStub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_unused: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def do_PATCH(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.do_GET()

    def drain(self) -> None:
        """Reads what was sent, or the connection could not be used again."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_GET(self) -> None:
        stub = self.stub
        line = f"{self.command} {self.path}"
        with stub.lock:
            stub.seen.append(Seen(line, dict(self.headers)))
            fault = next((one for one in stub.faults if one.where in line and one.times), None)
            if fault:
                fault.times -= 1
        if fault and fault.act:
            fault.act(self)
        elif fault and fault.status:
            self.drain()
            self.answer(fault.status, fault.body, fault.headers)
        elif self.path.partition("?")[0] == "/token":
            self.give_token()
        elif not self.is_welcome():
            self.drain()
            self.ask_for_login()
        else:
            self.serve(fault)

    def is_welcome(self) -> bool:
        given = self.headers.get("Authorization", "")
        if not self.stub.login:
            return True
        if self.stub.scheme == "basic":
            return given == basic(*self.stub.login)
        return given.startswith("Bearer ") and given[7:] in self.stub.tokens

    def ask_for_login(self) -> None:
        match = _PATH.match(self.path)
        realm = f"{self.stub.realm_host or self.stub.url}/token"
        scope = f"repository:{match['name'] if match else ''}:pull"
        challenge = f'Bearer realm="{realm}",service="stub",scope="{scope}"'
        if self.stub.scheme == "basic":
            challenge = 'Basic realm="stub, with a comma"'
        self.error(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge})

    def give_token(self) -> None:
        given = self.headers.get("Authorization", "")
        length = int(self.headers.get("Content-Length") or 0)
        form = dict(urllib.parse.parse_qsl(self.rfile.read(length).decode()))
        wanted = self.stub.login and basic(*self.stub.login)
        is_known = self.stub.identity_token and (
            form.get("refresh_token") == self.stub.identity_token
        )
        if given != wanted and not is_known and self.stub.login != ("", ""):
            self.answer(401, b'{"details": "incorrect username or password"}')
            return
        with self.stub.lock:
            token = f"token-{len(self.stub.tokens)}"
            self.stub.tokens.add(token)
            query = urllib.parse.parse_qs(self.path.partition("?")[2])
            self.stub.scopes[token] = set(query.get("scope", form.get("scope", "").split()))
        self.answer(200, json.dumps({"token": token}).encode())

    def serve(self, fault: Fault | None) -> None:
        stub = self.stub
        if stub.writes and stub.writes.take(self, fault):
            return
        path = self.path.partition("?")[0].removeprefix(stub.prefix)
        if path == "/v2/_catalog" or path.endswith("/tags/list"):
            self.list(path.removeprefix("/v2/").removesuffix("/tags/list"))
            return
        match = _PATH.match(path)
        if self.command == "HEAD" and not stub.serves_head:
            self.answer(405, b"")
            return
        what = match["what"] if match else ""
        digest = stub.tags.get(f"{match['name']}:{what}", what) if match else ""
        content = stub.content.get(digest)
        if content is None or match is None:
            code = "MANIFEST_UNKNOWN" if match and match["kind"] == "manifests" else "BLOB_UNKNOWN"
            self.error(404, code, "not known here")
            return
        size = len(content) if isinstance(content, bytes) else content.size
        start = self.wanted_start(size)
        headers = {"Content-Type": stub.types.get(digest, "application/octet-stream")}
        if stub.digest_header:
            headers["Docker-Content-Digest"] = digest
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        self.begin(206 if start else 200, size - start, headers)
        if self.command != "HEAD":
            chunks = [content[start:]] if isinstance(content, bytes) else content.read(start)
            self.pour(chunks, fault)

    def list(self, repository: str) -> None:
        """A page of tags or of the catalogue, as CNCF Distribution gives them."""
        stub = self.stub
        names = {tag.rpartition(":")[0] for tag in stub.tags}
        key, found = "repositories", sorted(names)
        if repository != "_catalog":
            if repository not in names:
                self.error(404, "NAME_UNKNOWN", "repository name not known to registry")
                return
            key = "tags"
            found = sorted(
                one.rpartition(":")[2] for one in stub.tags if one.startswith(f"{repository}:")
            )
        query = dict(urllib.parse.parse_qsl(self.path.partition("?")[2]))
        count = int(query.get("n", stub.page))
        if count > stub.most:
            self.error(400, "PAGINATION_NUMBER_INVALID", "invalid number of results requested")
            return
        count = min(count, stub.page)
        rest = [name for name in found if name > query.get("last", "")]
        headers = {"Content-Type": "application/json"}
        if len(rest) > count:
            following = urllib.parse.urlencode({"last": rest[count - 1], "n": count})
            headers["Link"] = f'<http://inside:5000/v2/x?{following}>; rel="next"'
        body: Json = {"name": repository, key: rest[:count]}
        self.answer(200, json.dumps(body).encode(), headers)

    def wanted_start(self, size: int) -> int:
        match = re.match(r"bytes=(\d+)-\Z", self.headers.get("Range", ""))
        return int(match[1]) if match and self.stub.ranges and int(match[1]) < size else 0

    def pour(self, chunks: Any, fault: Fault | None) -> None:
        sent = 0
        with contextlib.suppress(ConnectionError):
            for chunk in chunks:
                part = chunk
                if fault and fault.spoil:
                    part = bytes([part[0] ^ 1]) + part[1:]
                if fault and fault.cut_after is not None:
                    part = part[: max(0, fault.cut_after - sent)]
                self.wfile.write(part)
                sent += len(part)
                if len(part) < len(chunk):
                    self.wfile.flush()
                    threading.Event().wait(fault.stall if fault else 0)
                    self.cut()
                    return

    def cut(self) -> None:
        """Breaks the connection as a crash does: a reset in place of an orderly end."""
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def error(
        self, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> None:
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        self.answer(status, body, headers)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.begin(status, len(body), headers or {})
        if self.command != "HEAD":
            self.wfile.write(body)

    def begin(self, status: int, size: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(size), **headers}.items():
            self.send_header(key, value)
        self.end_headers()


def basic(username: str, password: str) -> str:
    """The Authorization header of the Basic scheme."""
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"
