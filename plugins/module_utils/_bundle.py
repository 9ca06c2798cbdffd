# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bundles: tars that plain `docker load -i` takes on every Engine, written from the store.

A bundle is an OCI image layout plus docker's `manifest.json`, whose `Config` and `Layers` name
files under `blobs/sha256/`. Layers are the registry's own bytes. What the target holds already may
be left out: `manifest.json` and the image manifests go on naming it. Same input, same bytes.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ansible_collections.fleet.images.plugins.module_utils._layout import (
    IMAGE_LAYOUT,
    IMAGE_NAME,
    REF_NAME,
    Layout,
    LayoutError,
    to_json,
)
from ansible_collections.fleet.images.plugins.module_utils._lock import LockedImage
from ansible_collections.fleet.images.plugins.module_utils._parts import Concatenated, pieces

BLOBS = "blobs/sha256/"
_END = bytes(2 * tarfile.BLOCKSIZE)


class BundleError(Exception):
    """A bundle that cannot be written or read; the message says what is wrong with which part."""


@dataclass(frozen=True)
class Region:
    """Bytes of a file, or of several that are read as one: `length` bytes from `offset`."""

    paths: tuple[Path, ...]
    offset: int
    length: int


@dataclass(frozen=True)
class Member:
    """One file of a tar: its name, its content or where that lies, its digest if it is a blob."""

    name: str
    content: bytes | Region
    digest: str = ""

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.length


@dataclass(frozen=True)
class Written:
    """What stands at a bundle's path: whether it was written now, bytes, SHA-256 (hex)."""

    changed: bool
    bytes: int
    sha256: str


def blob_name(digest: str) -> str:
    """The name of a blob's member in a bundle."""
    return BLOBS + digest.partition(":")[2]


def docker_manifest(
    images: Iterable[tuple[LockedImage, str]], with_names: bool = True
) -> list[dict[str, object]]:
    """The content of `manifest.json`: one entry per (image, platform), names where asked for.

    Format: https://github.com/moby/moby/blob/master/image/spec/spec.md.
    """
    entries: dict[str, dict[str, object]] = {}
    names: dict[str, list[str]] = {}
    for image, platform in images:
        wanted = image.on(platform)
        key = wanted.config.digest
        names.setdefault(key, []).append(image.destination.tagged)
        entries[key] = {
            "Config": blob_name(key),
            "RepoTags": sorted(set(names[key])) if with_names else None,
            "Layers": [blob_name(layer.digest) for layer in wanted.layers],
        }
    return list(entries.values())


def oci_index(
    images: Iterable[tuple[LockedImage, str]], with_names: bool = True
) -> dict[str, object]:
    """The content of `index.json`: what each name points to, an index or a manifest."""
    entries: list[dict[str, object]] = []
    for image, _platform in images:
        target = image.target
        entry: dict[str, object] = {
            "mediaType": target.media_type,
            "digest": target.digest,
            "size": target.size,
        }
        if with_names:
            name = image.destination
            entry["annotations"] = {IMAGE_NAME: name.tagged, REF_NAME: str(name.tag)}
        if entry not in entries:
            entries.append(entry)
    return {"schemaVersion": 2, "manifests": entries}


def head(images: Sequence[tuple[LockedImage, str]], with_names: bool = True) -> list[Member]:
    """The small members that stand first in every bundle."""
    return [
        Member("oci-layout", IMAGE_LAYOUT),
        Member("index.json", to_json(oci_index(images, with_names))),
        Member("manifest.json", to_json(docker_manifest(images, with_names))),
    ]


def members(
    layout: Layout,
    images: Sequence[tuple[LockedImage, str]],
    include: frozenset[str] | None,
    foreseen: bool = False,
) -> list[Member]:
    """A bundle's members: head, metadata, then the layers, each blob once.

    `include` names the digests of layers and attestations that go in; None means all. Raises
    LayoutError for a blob that the store lacks; not where it is only `foreseen`: the lock knows
    every size.
    """
    metadata, layers = {}, {}
    for image, platform in images:
        wanted = image.on(platform)
        for blob in (image.target, wanted.manifest, wanted.config):
            metadata[blob.digest] = blob
        for blob in (*wanted.layers, *wanted.attestations):
            if include is None or blob.digest in include:
                layers[blob.digest] = blob
    found = []
    for blob in (*metadata.values(), *layers.values()):
        if not foreseen and not layout.has(blob.digest, blob.size):
            raise LayoutError(
                f"blob {blob.digest}: wanted {blob.size} bytes in the store {layout.root}, not"
                " there; run image_fetch first"
            )
        region = Region((layout.path(blob.digest),), 0, blob.size)
        found.append(Member(blob_name(blob.digest), region, blob.digest))
    return head(images) + found


def stream(parts: Iterable[Member]) -> Iterator[bytes]:
    """The tar of these members, in pieces of at most 1 MiB; verifies every blob on its way.

    Raises BundleError where a blob's content is not that of its digest.
    """
    for member in parts:
        yield _header(member)
        yield from _content(member)
        yield bytes(-member.size % tarfile.BLOCKSIZE)
    yield _END


def size_of(parts: Iterable[Member]) -> int:
    """Bytes of the tar of these members."""
    block = tarfile.BLOCKSIZE
    return sum(block + member.size + -member.size % block for member in parts) + len(_END)


def _header(member: Member) -> bytes:
    info = tarfile.TarInfo(member.name)
    info.size, info.mode, info.mtime = member.size, 0o644, 0
    return info.tobuf(tarfile.GNU_FORMAT)


def _content(member: Member) -> Iterator[bytes]:
    if isinstance(member.content, bytes):
        yield member.content
        return
    digest = hashlib.sha256()
    for chunk in read_region(member.content):
        digest.update(chunk)
        yield chunk
    if member.digest and f"sha256:{digest.hexdigest()}" != member.digest:
        raise BundleError(
            f"blob {member.digest}: {member.content.paths[0]} holds other content"
            f" (sha256:{digest.hexdigest()}); remove that file and make it anew"
        )


def read_region(region: Region) -> Iterator[bytes]:
    """The bytes of a region, in pieces of at most 1 MiB; raises BundleError where it ends early."""
    with Concatenated(region.paths) as file:
        file.seek(region.offset)
        left = region.length
        for chunk in pieces(file, left):
            left -= len(chunk)
            yield chunk
    if left:
        raise BundleError(
            f"{region.paths[0]}: wanted {region.length} bytes from {region.offset}, it ends"
            f" {left} bytes early; make or copy it anew"
        )


def write(path: Path, parts: Sequence[Member], dry_run: bool = False) -> Written:
    """Puts the bundle at `path`, or leaves alone one that is the same to the byte.

    Written beside, flushed to disk and renamed. With `dry_run` nothing is written, and the SHA-256
    of a bundle that would be is ''. Raises OSError, BundleError.
    """
    there = _compare(path, parts)
    if there:
        return Written(False, size_of(parts), there)
    if dry_run:
        return Written(True, size_of(parts), "")
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    digest = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with beside.open("wb") as file:
            for chunk in stream(parts):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        _sync_directory(path.parent)
    finally:
        beside.unlink(missing_ok=True)
    return Written(True, size_of(parts), digest.hexdigest())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _compare(path: Path, parts: Sequence[Member]) -> str:
    """The SHA-256 (hex) of the file, where it is just the bundle of these members; '' else.

    Blobs are compared by their digest, so the store is not read a second time.
    """
    if not path.is_file() or path.stat().st_size != size_of(parts):
        return ""
    whole = hashlib.sha256()
    with path.open("rb") as file:
        for member in parts:
            expected = _header(member)
            if not _same(file, whole, expected) or not _same_content(file, whole, member):
                return ""
            if not _same(file, whole, bytes(-member.size % tarfile.BLOCKSIZE)):
                return ""
        return whole.hexdigest() if _same(file, whole, _END) else ""


def _same(file: BinaryIO, whole: hashlib._Hash, expected: bytes) -> bool:
    found = file.read(len(expected))
    whole.update(found)
    return found == expected


def _same_content(file: BinaryIO, whole: hashlib._Hash, member: Member) -> bool:
    if isinstance(member.content, bytes):
        return _same(file, whole, member.content)
    digest = hashlib.sha256()
    for chunk in pieces(file, member.size):
        digest.update(chunk)
        whole.update(chunk)
    return f"sha256:{digest.hexdigest()}" == member.digest
