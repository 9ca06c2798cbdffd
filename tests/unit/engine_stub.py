# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An Engine that keeps images in memory, on a unix socket, and goes wrong on demand.

It reads what is uploaded as a real one does: a classic store looks for a layer by its chain ID
before it looks into the archive, a containerd store for each blob by its digest.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import tarfile
import tempfile
import threading
import time
import urllib.parse
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

Json = "dict[str, Any]"
SMALL = 1 << 20
# kind -> Engine, API, image store
KINDS = {
    "classic": ("20.10.24", "1.41", "overlay2"),
    "containerd-old": ("26.1.4", "1.45", "overlayfs"),
    "containerd": ("28.5.2", "1.51", "overlayfs"),
}


@dataclass
class Fault:
    """What goes wrong with a load (`what`), or with requests that match `where`.

    For loads: `told` (its words as an error after "Loaded image"), `unpack` (kept, not unpacked,
    its words as text), `silent-unpack`, `pretend` (says that all is well and keeps nothing),
    `stall`, `cut`, `gone` (after it has said that all is well), `meet` (waits for a second load).
    For pulls, of images whose name has `image` in it: `pull told`, `pull cut`, `pull stall`,
    `pull pretend`, `pull other` (another image than the one that was asked for comes).
    """

    what: str = ""
    words: str = "something broke"
    where: str = ""
    status: int = 0
    times: int = 1
    image: str = ""
    release: threading.Event = field(default_factory=threading.Event)


@dataclass
class Image:
    """An image as the Engine lists it."""

    id: str
    diff_ids: list[str]
    platform: str = "linux/amd64"
    manifest: str = ""
    blobs: list[str] = field(default_factory=list)
    unpacked: bool = True
    tags: set[str] = field(default_factory=set)
    repo_digests: list[str] = field(default_factory=list)


@dataclass
class Upload:
    """What one load brought: small members, the digest and diff ID of every blob, bytes."""

    small: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, str] = field(default_factory=dict)
    bytes: int = 0

    def json(self, name: str) -> Any:
        return json.loads(self.small[name])

    def blob(self, digest: str) -> Any:
        return self.json(f"blobs/sha256/{digest[7:]}")


def chain_of(diff_ids: Iterable[str]) -> str:
    chain = ""
    for diff_id in diff_ids:
        text = f"{chain} {diff_id}".encode()
        chain = f"sha256:{hashlib.sha256(text).hexdigest()}" if chain else diff_id
    return chain


class EngineStub:
    """`with EngineStub("classic") as engine:`; `engine.url` is its docker_host."""

    def __init__(self, kind: str = "containerd") -> None:
        self.kind = kind
        self.version, self.api, self.driver = KINDS[kind]
        self.classic = kind == "classic"
        self.architecture = "x86_64"
        self.images: dict[str, Image] = {}
        self.found: list[Json] = []
        self.more_info: Json = {}
        self.layers: set[str] = set()  # classic: chain IDs
        self.content: set[str] = set()  # containerd: digests of blobs
        self.faults: list[Fault] = []
        self.seen: list[str] = []
        self.uploads: list[Upload] = []
        # What registries serve: full reference -> image; and the logins that pulls brought.
        self.served: dict[str, Any] = {}
        self.logins: list[Json] = []
        # What an export of these IDs is, and whether the connection ends before it does.
        self.export: Callable[[list[str]], bytes] = lambda _ids: b""
        self.export_breaks = False
        self.body: Any = None  # of the request that is being answered
        self.in_flight = self.most_in_flight = 0
        self.gone = False
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self._directory = tempfile.mkdtemp(prefix="fleet-stub-")  # short: sockets want that
        self.socket = f"{self._directory}/docker.sock"
        self.url = f"unix://{self.socket}"
        self._server = _Server(self.socket, _handler(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )

    def __enter__(self) -> EngineStub:
        self._thread.start()
        return self

    def __exit__(self, *_unused: object) -> None:
        for fault in self.faults:
            fault.release.set()
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def stop(self) -> None:
        """No request is answered from now on."""
        self.gone = True
        Path(self.socket).unlink(missing_ok=True)
        self._server.shutdown()
        self._server.server_close()

    def fault(self, what: str = "", **how: Any) -> Fault:
        self.faults.append(Fault(what, **how))
        return self.faults[-1]

    def asked(self, pattern: str) -> list[str]:
        """The requests (`METHOD /path?query`, without the API's version) that match."""
        return [line for line in self.seen if re.search(pattern, line)]

    def also(self, method: str, path: str, query: dict[str, str]) -> tuple[int, Any] | None:
        """Status and document of requests that a stub above this one answers."""

    @property
    def tags(self) -> dict[str, str]:
        return {tag: image.id for image in self.images.values() for tag in image.tags}

    @property
    def digests(self) -> dict[str, str]:
        """Every name@digest that is a name of its own."""
        return {name: one.id for one in self.images.values() for name in one.repo_digests}

    @property
    def nameless(self) -> set[str]:
        return {image.id for image in self.images.values() if not image.tags}

    # what is there

    def serve(self, locked: Any, name: str = "") -> None:
        """A registry has the image under this name (with a tag; else its own) and its digest."""
        name = name or locked.name
        repository = name.rpartition(":")[0]
        self.served[name] = locked
        self.served[f"{repository}@{locked.target.digest}"] = locked

    def pull(self, name: str) -> None:
        """What an Engine keeps of a pull, by tag or by digest."""
        locked, by_digest = self.served[name], "@" in name
        repository = name.partition("@")[0] if by_digest else name.rpartition(":")[0]
        image = self.hold(locked, None if by_digest else name)
        digest = name if by_digest else f"{repository}@{locked.target.digest}"
        # The containerd store makes a record of it only where that is what was asked for.
        if (self.classic or by_digest) and digest not in image.repo_digests:
            image.repo_digests.append(digest)

    def untag(self, name: str) -> None:
        """Takes one name away as real Engines do, and the image with its last one."""
        image = self.images[self.tags.get(name) or self.digests[name]]
        repository = name.partition("@")[0] if "@" in name else name.rpartition(":")[0]
        tags = {tag for tag in image.tags if tag.rpartition(":")[0] == repository}
        digests = {one for one in image.repo_digests if one.startswith(f"{repository}@")}
        gone = {name}
        if not self.classic and "@" in name:
            gone |= tags
        if "@" not in name and tags == {name}:
            gone |= digests
        image.tags -= gone
        image.repo_digests = [one for one in image.repo_digests if one not in gone]
        if not image.tags and not image.repo_digests:
            del self.images[image.id]

    def hold(self, locked: Any, tag: str | None = "", platform: str = "linux/amd64") -> Image:
        """Puts an image there as if it had been pulled; with its own tag, another, or None."""
        one = locked.on(platform)
        id_ = one.config.digest if self.classic else locked.target.digest
        blobs = [locked.target.digest, one.manifest.digest, one.config.digest]
        blobs += [layer.digest for layer in one.layers]
        image = Image(id_, list(one.diff_ids), platform, one.manifest.digest, blobs)
        image = self.images.setdefault(id_, image)
        if tag is not None:
            self.tag(id_, tag or locked.destination.tagged)
        self._keep(image)
        return image

    def _keep(self, image: Image) -> None:
        self.layers |= {chain_of(image.diff_ids[: n + 1]) for n in range(len(image.diff_ids))}
        self.content |= set(image.blobs)

    def tag(self, id_: str, tag: str) -> None:
        for image in self.images.values():
            image.tags.discard(tag)
        self.images[id_].tags.add(tag)

    def listed(self, manifests: bool) -> list[Json]:
        return [self._listed(image, manifests) for image in self.images.values()]

    def _listed(self, image: Image, manifests: bool) -> Json:
        tags: Any = sorted(map(_familiar, image.tags))
        if not tags and self.classic:
            tags = ["<none>:<none>"]
        digests: Any = list(image.repo_digests) or None
        if digests is None and self.classic and not image.tags:
            digests = ["<none>@<none>"]
        entry: Json = {"Id": image.id, "RepoTags": tags, "RepoDigests": digests, "Size": 5}
        if manifests:
            os_name, architecture = image.platform.split("/")
            data = {
                "Platform": {"os": os_name, "architecture": architecture},
                "Size": {"Unpacked": 4096 if image.unpacked else 0},
            }
            there = set(image.blobs) <= self.content
            nothing = {"ID": "sha256:" + "0" * 64, "Kind": "attestation", "Available": True}
            entry["Manifests"] = [
                {"ID": image.manifest, "Kind": "image", "Available": there, "ImageData": data},
                nothing,
            ]
        return entry

    def inspected(self, id_: str) -> Json | None:
        image = self.images.get(id_)
        if image is None:
            return None
        os_name, architecture = image.platform.split("/")
        rootfs = {"Type": "layers", "Layers": image.diff_ids}
        return {
            "Id": id_,
            "Os": os_name,
            "Architecture": architecture,
            "RootFS": rootfs,
            "RepoDigests": image.repo_digests or None,
        }

    # loads

    def apply(self, upload: Upload) -> tuple[list[Image], str]:
        """The images that an archive brings, and what is wrong with it; '' if nothing."""
        found: list[Image] = []
        for entry in upload.json("manifest.json"):
            image, error = self._image(upload, entry)
            if error:
                return found, error
            image.tags = set(entry["RepoTags"] or ())
            found.append(image)
        return found, ""

    def _image(self, upload: Upload, entry: Json) -> tuple[Image, str]:
        config = "sha256:" + entry["Config"][13:]
        described = upload.blob(config)
        diff_ids = described["rootfs"]["diff_ids"]
        platform = f"{described['os']}/{described['architecture']}"
        layers = ["sha256:" + name[13:] for name in entry["Layers"]]
        image = Image(config, diff_ids, platform)
        if self.classic:
            return image, self._missing_layer(upload, diff_ids, layers)
        image.id, image.manifest = _target_of(upload, config)
        image.blobs = [image.id, image.manifest, config, *layers]
        there = self.content | set(upload.blobs)
        gone = [digest for digest in image.blobs if digest not in there]
        image.unpacked = not gone
        if gone and self.kind == "containerd-old":
            return image, f"unable to unpack: content digest {gone[0]}: not found"
        return image, ""

    def _missing_layer(self, upload: Upload, diff_ids: list[str], layers: list[str]) -> str:
        for number, digest in enumerate(layers):
            if chain_of(diff_ids[: number + 1]) in self.layers:
                continue
            if digest not in upload.blobs:
                return f"open blobs/sha256/{digest[7:]}: no such file or directory"
            if upload.blobs[digest] != diff_ids[number]:
                return f"layers from manifest don't match image configuration: {digest}"
        return ""

    def take(self, upload: Upload, fault: Fault) -> Iterator[Json]:
        """Applies an upload, and says so as an Engine does; some faults change what is kept."""
        images, error = self.apply(upload)
        for image in images:
            if fault.what == "pretend" and fault.image in ("", image.id):
                yield {"stream": f"Loaded image ID: {image.id}\n"}
                continue
            image.unpacked = image.unpacked and fault.what not in ("unpack", "silent-unpack")
            named, image.tags = image.tags, set()
            self.content |= set(upload.blobs)
            self.images.setdefault(image.id, image).unpacked = image.unpacked
            self.layers |= {chain_of(image.diff_ids[: n + 1]) for n in range(len(image.diff_ids))}
            for tag in named:
                self.tag(image.id, tag)
            yield {"stream": f"Loaded image ID: {image.id}\n"}
            if not image.unpacked and fault.what != "silent-unpack":
                yield {"stream": f"Error unpacking image {image.id}: {fault.words}\n"}
        if error or fault.what == "told":
            words = error or fault.words
            yield {"errorDetail": {"message": words}, "error": words}


def _familiar(tag: str) -> str:
    return re.sub(r"^docker\.io/(?:library/)?", "", tag)


def _target_of(upload: Upload, config: str) -> tuple[str, str]:
    """What the name of an image with this config points to, and its manifest."""
    for entry in upload.json("index.json")["manifests"]:
        content = upload.blob(entry["digest"])
        for child in content.get("manifests", [entry]):
            if f"blobs/sha256/{child['digest'][7:]}" in upload.small:
                manifest = upload.blob(child["digest"])
                if manifest["config"]["digest"] == config:
                    return entry["digest"], child["digest"]
    raise AssertionError(f"{config} is not in index.json")


def read_upload(source: Any) -> Upload:
    """Reads a tar as it comes; large members are only hashed."""
    upload = Upload()
    with tarfile.open(fileobj=source, mode="r|") as tar:
        for info in tar:
            file = tar.extractfile(info)
            assert file is not None, info.name
            upload.bytes += info.size
            if info.name.startswith("blobs/"):
                digest, diff_id, small = _hashed(file)
                assert digest == "sha256:" + info.name[13:], f"{info.name} is {digest}"
                upload.blobs[digest] = diff_id
            else:
                small = file.read()
            assert info.name not in upload.small, f"{info.name} stands twice"
            upload.small[info.name] = small
    while source.read(1 << 16):
        pass
    return upload


def _hashed(file: Any) -> tuple[str, str, bytes]:
    """Digest, diff ID, and the content if it is small."""
    whole, plain, kept = hashlib.sha256(), hashlib.sha256(), io.BytesIO()
    unpack: Any = None
    for number, chunk in enumerate(iter(lambda: file.read(SMALL), b"")):
        whole.update(chunk)
        if number == 0:
            kept.write(chunk)
            unpack = zlib.decompressobj(31) if chunk[:2] == b"\x1f\x8b" else None
        plain.update(unpack.decompress(chunk) if unpack else chunk)
    return f"sha256:{whole.hexdigest()}", f"sha256:{plain.hexdigest()}", kept.getvalue()


def complaints(upload: Upload) -> list[str]:
    """What in an upload would give an image a name before it was verified."""
    found = [f"RepoTags {entry}" for entry in upload.json("manifest.json") if entry["RepoTags"]]
    for entry in upload.json("index.json")["manifests"]:
        if "annotations" in entry:
            found.append(f"annotations {entry}")
    return found


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, *_unused: Any) -> None:
        """A client that goes away is part of the tests."""


class _Chunked(io.RawIOBase):
    """A request body with `Transfer-Encoding: chunked`, read as a file."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self._source = source
        self._left = 0
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.ended:
            return 0
        if not self._left:
            line = self._source.readline()
            if not line.strip():
                raise ConnectionError("the body was cut")
            self._left = int(line, 16)
            if not self._left:
                self._source.readline()
                self.ended = True
                return 0
        chunk = self._source.read(min(self._left, len(buffer)))
        if not chunk:
            raise ConnectionError("the body was cut")
        self._left -= len(chunk)
        if not self._left:
            self._source.readline()
        buffer[: len(chunk)] = chunk
        return len(chunk)


def _handler(stub: EngineStub) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"stub": stub})


class _Handler(BaseHTTPRequestHandler):
    stub: EngineStub
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_unused: object) -> None:
        pass

    def do_GET(self) -> None:
        self.serve()

    def do_POST(self) -> None:
        self.serve()

    def do_DELETE(self) -> None:
        self.serve()

    def serve(self) -> None:
        stub = self.stub
        if stub.gone:
            self.close_connection = True
            return
        matched = re.match(r"(?:/v(\d+\.\d+))?(/[^?]*)(?:\?(.*))?$", self.path)
        assert matched is not None
        self.api = min(_numbers(matched[1] or stub.api), _numbers(stub.api))
        self.query = dict(urllib.parse.parse_qsl(matched[3] or ""))
        path = urllib.parse.unquote(matched[2])
        line = f"{self.command} {path}" + (f"?{matched[3]}" if matched[3] else "")
        with stub.lock:
            stub.seen.append(line)
            fault = self.fault_for(line)
        if fault:
            self.drain()
            self.answer(fault.status, {"message": fault.words})
        elif line.startswith("POST /images/load"):
            self.load()
        elif line.startswith("POST /images/create"):
            self.pull()
        elif line.startswith("GET /images/get"):
            self.export(urllib.parse.parse_qs(matched[3])["names"])
        else:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with stub.lock:
                stub.body = json.loads(content) if content else None
                self.answer(*self.result(path))

    def fault_for(self, line: str) -> Fault | None:
        for fault in self.stub.faults:
            if fault.where and fault.times and re.search(fault.where, line):
                fault.times -= 1
                return fault
        return None

    def result(self, path: str) -> tuple[int, Any]:
        stub = self.stub
        if told := stub.also(self.command, path, self.query):
            return told
        if path == "/_ping":
            return 200, "OK"
        if path == "/version":
            return 200, {"Version": stub.version, "ApiVersion": stub.api, "MinAPIVersion": "1.24"}
        if path == "/info":
            return 200, self.info()
        if path == "/images/json":
            told = self.query.get("manifests") == "1" and self.api >= (1, 47)
            return 200, stub.listed(told and not stub.classic)
        if path == "/images/search":
            return 200, stub.found
        if path.startswith("/distribution/"):
            return self.distribution(path[len("/distribution/") : -len("/json")])
        matched = re.match(r"/images/(.+?)(/json|/tag)?$", path)
        id_ = {**stub.tags, **stub.digests}.get(matched[1], matched[1]) if matched else ""
        if matched is None or id_ not in stub.images:
            return 404, {"message": f"No such image: {path.split('/')[2]}"}
        if self.command == "DELETE" and matched[1] != id_:
            stub.untag(matched[1])
            return 200, [{"Untagged": matched[1]}]
        return self.image(id_, matched[2] or "")

    def distribution(self, name: str) -> tuple[int, Any]:
        self.note_login()
        locked = self.stub.served.get(name)
        if locked is None:
            return 404, {"message": "manifest unknown: manifest unknown"}
        return 200, {"Descriptor": {"digest": locked.target.digest}, "Platforms": []}

    def note_login(self) -> None:
        given = self.headers.get("X-Registry-Auth") or ""
        self.stub.logins.append(json.loads(base64.urlsafe_b64decode(given) or "{}"))

    def pull(self) -> None:
        """As a real one: what a registry does not have is a status, what breaks later a message."""
        stub, source, tag = self.stub, self.query["fromImage"], self.query["tag"]
        name = f"{source}@{tag}" if tag.startswith("sha256:") else f"{source}:{tag}"
        with stub.lock:
            self.note_login()
            fault = self.pull_fault(name)
            stub.in_flight += 1
            stub.most_in_flight = max(stub.most_in_flight, stub.in_flight)
        if name not in stub.served:
            words = f"manifest for {name} not found: manifest unknown: manifest unknown"
            self.answer(404, {"message": words})
        else:
            self.pulling(name, fault)
        with stub.lock:
            stub.in_flight -= 1

    def pull_fault(self, name: str) -> Fault:
        for fault in self.stub.faults:
            if fault.what.startswith("pull ") and fault.times and fault.image in name:
                fault.times -= 1
                return fault
        return Fault()

    def pulling(self, name: str, fault: Fault) -> None:
        stub = self.stub
        locked = stub.served[name]
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.say({"status": f"Pulling from {name}", "id": "1"})
        for layer in locked.on("linux/amd64").layers:
            detail = {"current": layer.size // 2, "total": layer.size}
            short = layer.digest[7:19]
            self.say({"status": "Downloading", "progressDetail": detail, "id": short})
        if fault.what == "pull stall":
            fault.release.wait(30)
        if fault.what in ("pull cut", "pull stall"):
            self.close_connection = True
            return
        if fault.what == "pull told":
            self.say({"errorDetail": {"message": fault.words}, "error": fault.words})
        else:
            with stub.lock:
                if fault.what == "pull other":
                    stub.served[name] = stub.served[fault.words]
                if fault.what != "pull pretend":
                    stub.pull(name)
            self.say({"status": f"Digest: {locked.target.digest}"})
            self.say({"status": f"Status: Downloaded newer image for {name}"})
        self.wfile.write(b"0\r\n\r\n")

    def image(self, id_: str, what: str) -> tuple[int, Any]:
        if what == "/json":
            return 200, self.stub.inspected(id_)
        if what == "/tag":
            self.stub.tag(id_, f"{self.query['repo']}:{self.query['tag']}")
            return 201, None
        del self.stub.images[id_]
        return 200, [{"Deleted": id_}]

    def info(self) -> Json:
        stub = self.stub
        kind = "io.containerd.snapshotter.v1"
        status = [["Backing Filesystem", "extfs"]] if stub.classic else [["driver-type", kind]]
        return {
            "Driver": stub.driver,
            "DriverStatus": status,
            "DockerRootDir": "/var/lib/docker",
            "OSType": "linux",
            "Architecture": stub.architecture,
            **stub.more_info,
        }

    def drain(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = io.BufferedReader(_Chunked(self.rfile))
            while body.read(1 << 16):
                pass
        else:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status: int, document: Any) -> None:
        raw = isinstance(document, bytes)
        content = document if raw else b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def export(self, ids: list[str]) -> None:
        """As a real one: the whole fails if one image is not there."""
        if lacking := [one for one in ids if one not in self.stub.images]:
            self.answer(404, {"message": f"No such image: {lacking[0]}"})
            return
        content = self.stub.export(ids)
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for at in range(0, len(content), 1 << 15):
            chunk = content[at : at + (1 << 15)]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        self.close_connection = True
        if not self.stub.export_breaks:
            self.wfile.write(b"0\r\n\r\n")

    def load(self) -> None:
        stub = self.stub
        with stub.lock:
            fault = next((one for one in stub.faults if one.what and one.times), Fault(times=0))
            fault.times -= 1
            stub.in_flight += 1
            stub.most_in_flight = max(stub.most_in_flight, stub.in_flight)
            stub.changed.notify_all()
        try:
            self.loading(fault)
        except (ConnectionError, tarfile.TarError, AssertionError) as error:
            with stub.lock:
                stub.seen.append(f"broken upload: {error}")
            self.close_connection = True
        finally:
            with stub.lock:
                stub.in_flight -= 1

    def loading(self, fault: Fault) -> None:
        stub = self.stub
        if fault.what == "cut":
            self.rfile.read(1000)
            self.close_connection = True
            return
        upload = read_upload(io.BufferedReader(_Chunked(self.rfile), 1 << 20))
        if fault.what == "meet":
            with stub.changed:
                stub.changed.wait_for(lambda: stub.most_in_flight > 1, timeout=10)
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.say({"status": "Loading layer", "progressDetail": {"current": 1, "total": 2}})
        if fault.what == "stall":
            fault.release.wait(30)
        with stub.lock:
            stub.uploads.append(upload)
            told = list(stub.take(upload, fault))
        for message in told:
            self.say(message)
        if fault.what == "gone":
            threading.Thread(target=stub.stop).start()
            while Path(stub.socket).exists():
                time.sleep(0.01)
            self.close_connection = True
        self.wfile.write(b"0\r\n\r\n")

    def say(self, message: Json) -> None:
        line = json.dumps(message).encode() + b"\r\n"
        self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
