# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The store: an OCI image layout on the bastion, every blob once, under its digest.

Layout: https://github.com/opencontainers/image-spec/blob/main/image-layout.md. Tools that read
OCI layouts can read it. A file stands under a digest only when its content was verified, so
presence means "whole"; what is still being fetched lies beside it under another name.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ansible_collections.fleet.images.plugins.module_utils._lock import Blob, LockedImage
from ansible_collections.fleet.images.plugins.module_utils._manifest import descriptor

CHUNK = 1 << 20
IMAGE_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"


class LayoutError(Exception):
    """The store cannot be used as it is; the message says what was wanted and what is there."""


class Layout:
    """An image layout directory. Several processes may use one at the same time."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def create(self) -> None:
        """Makes the directory, where it is not there yet; raises OSError."""
        blobs = self.root / "blobs" / "sha256"
        blobs.mkdir(parents=True, exist_ok=True)
        marker = self.root / "oci-layout"
        if not marker.exists():
            write_atomically(marker, IMAGE_LAYOUT)

    def path(self, digest: str) -> Path:
        """Where the blob of this digest lies, or will lie."""
        return self.root / "blobs" / digest.replace(":", "/", 1)

    def has(self, digest: str, size: int | None = None) -> bool:
        """Whether the blob is there whole. `size` in bytes; one that differs does not count."""
        try:
            found = self.path(digest).stat().st_size
        except FileNotFoundError:
            return False
        return size is None or found == size

    def read(self, digest: str, limit: int = 16 << 20) -> bytes:
        """A small blob (manifest, index, config), verified; raises LayoutError.

        `limit` in bytes: a manifest is at most 4 MiB by the distribution specification.
        """
        path = self.path(digest)
        try:
            with path.open("rb") as file:
                content = file.read(limit + 1)
        except FileNotFoundError as error:
            raise LayoutError(
                f"blob {digest}: wanted in the store {self.root}, not there; run image_fetch"
            ) from error
        if len(content) > limit or digest_of(content) != digest:
            raise LayoutError(
                f"blob {digest}: {path} holds other content; run image_fetch, it fetches the blob"
                " anew"
            )
        return content

    def put(self, content: bytes, anew: bool = False) -> str:
        """Keeps a small blob and returns its digest; one that is there is only written `anew`."""
        digest = digest_of(content)
        if anew or not self.has(digest, len(content)):
            write_atomically(self.path(digest), content)
        return digest

    def discard(self, digest: str) -> None:
        """Removes a blob, as one that is damaged; one that is not there is no error."""
        self.path(digest).unlink(missing_ok=True)

    def damaged(self, blob: Blob) -> bool:
        """Whether the blob is there with other content; reads all of it."""
        whole = hashlib.sha256()
        try:
            with self.path(blob.digest).open("rb") as file:
                for chunk in iter(lambda: file.read(CHUNK), b""):
                    whole.update(chunk)
        except FileNotFoundError:
            return False
        return f"sha256:{whole.hexdigest()}" != blob.digest

    def using(self) -> contextlib.AbstractContextManager[bool]:
        """While the store is in use: nobody removes blobs from it meanwhile."""
        return self._flocked(fcntl.LOCK_SH)

    def alone(self, seconds: float) -> contextlib.AbstractContextManager[bool]:
        """Whether nobody else uses the store; nobody does until the end then.

        Waits this long at most. Not inside of `using`: that would be waiting for oneself.
        """
        return self._flocked(fcntl.LOCK_EX, time.monotonic() + seconds)

    @contextlib.contextmanager
    def _flocked(self, kind: int, deadline: float | None = None) -> Iterator[bool]:
        """A lock on the directory itself, so that readers need to write nothing."""
        try:
            descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            yield True  # There is nothing yet that could be removed.
            return
        try:
            yield _flock(descriptor, kind, deadline)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def writing(self, blob: Blob) -> Iterator[BlobWriter]:
        """A writer for one large blob: `with layout.writing(blob) as out: out.write(chunk)`.

        Goes on where an earlier, broken transfer stopped (`out.offset` bytes are there; all of
        them if another process was quicker). On
        leaving, the digest is verified and the blob gets its name; raises LayoutError where the
        content is not that of the digest, and nothing stands under the name then.
        """
        writer = BlobWriter(self.path(blob.digest), blob)
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()

    def names(self) -> list[dict[str, Any]]:
        """The entries of `index.json`: descriptors, most with the annotation of a name.

        Raises LayoutError for a file that is no image index.
        """
        path = self.root / "index.json"
        try:
            entries = json.loads(path.read_bytes())["manifests"]
            return [entry for entry in entries if entry["digest"]]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError) as error:
            raise LayoutError(
                f"{path}: wanted an image index, found none ({type(error).__name__}: {error});"
                " remove it and fetch anew, blobs that are there are taken again"
            ) from error

    def record(self, images: list[LockedImage]) -> bool:
        """Names these images in `index.json`; returns whether that changed anything.

        A name that moves leaves its former target in the index without a name: Engines out there
        may still have it, and its blob lists tell what they hold.
        """
        with self._locked():
            before = self.names()
            moved = {image.name for image in images}
            return self._write_names(before, moved, [_named(image) for image in images])

    def unname(self, names: Container[str]) -> bool:
        """Takes these names away, their targets stay in the index; whether there were any."""
        with self._locked():
            return self._write_names(self.names(), names, [])

    def _write_names(
        self, before: list[dict[str, Any]], moved: Container[str], named: list[dict[str, Any]]
    ) -> bool:
        kept = [entry for entry in before if name_of(entry) not in moved]
        loose = [_without_name(entry) for entry in before if name_of(entry) in moved]
        taken = {entry["digest"] for entry in (*kept, *named)}
        for entry in loose:
            if entry["digest"] not in taken:
                kept.append(entry)
                taken.add(entry["digest"])
        after = sorted((*kept, *named), key=lambda entry: (name_of(entry), entry["digest"]))
        if after == before:
            return False
        document = {"schemaVersion": 2, "manifests": after}
        write_atomically(self.root / "index.json", to_json(document))
        return True

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.root / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class BlobWriter:
    """Writes one blob beside its place; `finish` verifies it and gives it its name."""

    def __init__(self, path: Path, blob: Blob) -> None:
        self._path = path
        self._blob = blob
        self._part = path.with_name(f".{path.name}.part")
        self._hash = hashlib.sha256()
        self._file = self._open()
        # Another process may have fetched the blob while this one waited for the lock.
        self.done = path.exists() and path.stat().st_size == blob.size
        self.offset = blob.size if self.done else self._take_up()

    def _open(self) -> BinaryIO:
        """The file beside, locked: of two processes that want a blob, the second one waits."""
        while True:
            file = self._part.open("a+b")
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                # The first one may have given it its name meanwhile: this is the blob itself then.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(file.fileno()), self._part.stat()):
                        return file
            except BaseException:
                file.close()
                raise
            file.close()

    def _take_up(self) -> int:
        """Hashes what an earlier transfer left; returns its length in bytes."""
        self._file.seek(0)
        for chunk in iter(lambda: self._file.read(CHUNK), b""):
            self._hash.update(chunk)
        offset = self._file.tell()
        if offset > self._blob.size:
            self.restart()
            return 0
        return offset

    def restart(self) -> None:
        """Forgets what is there: the source sends the blob from its first byte."""
        self._file.truncate(0)
        self._hash = hashlib.sha256()
        self.offset = 0

    def write(self, chunk: bytes) -> None:
        """Appends; raises LayoutError for more bytes than the descriptor names."""
        self.offset += len(chunk)
        if self.offset > self._blob.size:
            self._reject(f"{self.offset} bytes and more")
        self._hash.update(chunk)
        self._file.write(chunk)

    def finish(self) -> None:
        """Verifies size and digest, flushes to disk, renames; raises LayoutError."""
        if self.done:
            self._part.unlink(missing_ok=True)
            return
        if self.offset < self._blob.size:
            raise LayoutError(
                f"blob {self._blob.digest}: wanted {self._blob.size} bytes, the transfer ended"
                f" after {self.offset}; run it again, it goes on from there"
            )
        found = f"sha256:{self._hash.hexdigest()}"
        if found != self._blob.digest:
            self._reject(found)
        self._file.flush()
        os.fsync(self._file.fileno())
        os.replace(self._part, self._path)
        sync_directory(self._path.parent)

    def _reject(self, found: str) -> None:
        """A wrong content is not worth keeping: the next try starts from nothing."""
        self.restart()
        raise LayoutError(
            f"blob {self._blob.digest}: wanted {self._blob.size} bytes of this digest, the source"
            f" sent {found}; nothing was kept, ask the registry's owner"
        )

    def close(self) -> None:
        """Gives up the file and its lock; what was written stays for the next try."""
        self._file.close()


def digest_of(content: bytes) -> str:
    """The digest (`sha256:<hex>`) of some bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def to_json(document: Any) -> bytes:
    """JSON in one spelling: sorted, without blanks."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def write_atomically(path: Path, content: bytes, mode: int | None = None) -> None:
    """Writes beside, flushes to disk, renames: the path never holds half a file.

    `mode`: the file's permissions, None for those of the process's umask. Raises OSError.
    """
    # Threads too: two images that share a small blob may both be putting it.
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with beside.open("wb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        sync_directory(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Flushes a directory to disk: only then a rename in it outlasts a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flock(descriptor: int, kind: int, deadline: float | None) -> bool:
    """Takes the lock, by the deadline (of the monotonic clock) if there is one; whether it did."""
    if deadline is None:
        fcntl.flock(descriptor, kind)
        return True
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
        time.sleep(0.1)


def name_of(entry: dict[str, Any]) -> str:
    """The image's name of an entry of `index.json`; '' where it has none."""
    return str((entry.get("annotations") or {}).get(IMAGE_NAME, ""))


def _without_name(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "annotations"}


def _named(image: LockedImage) -> dict[str, Any]:
    tag = image.name.rpartition(":")[2]
    return {**descriptor(image.target), "annotations": {IMAGE_NAME: image.name, REF_NAME: tag}}
