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
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ansible_collections.fleet.images.plugins.module_utils._layout import (
    IMAGE_LAYOUT,
    IMAGE_NAME,
    REF_NAME,
    Layout,
    LayoutError,
    to_json,
)
from ansible_collections.fleet.images.plugins.module_utils._lock import LockedImage
from ansible_collections.fleet.images.plugins.module_utils._manifest import descriptor
from ansible_collections.fleet.images.plugins.module_utils._parts import (
    Concatenated,
    Source,
    pieces,
)

BLOBS = "blobs/sha256/"
_END = bytes(2 * tarfile.BLOCKSIZE)


class BundleError(Exception):
    """A bundle that cannot be written or read; the message says what is wrong with which part."""


class DamagedBlob(BundleError):
    """A blob whose content is not that of its digest."""

    def __init__(self, digest: str, message: str) -> None:
        super().__init__(message)
        self.digest = digest


@dataclass(frozen=True)
class Region:
    """Bytes of a file, or of several that are read as one: `length` bytes from `offset`.

    `shown` is what errors call the file, where that is not the path of the first.
    """

    paths: tuple[Path | Source, ...]
    offset: int
    length: int
    shown: str = ""

    @property
    def name(self) -> str:
        """What errors call the file."""
        return self.shown or str(self.paths[0])


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
        entry = descriptor(image.target)
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

    Raises DamagedBlob where a blob's content is not that of its digest.
    """
    for piece in skeleton(parts):
        if isinstance(piece, bytes):
            yield piece
        else:
            yield from _content(piece)


def skeleton(parts: Iterable[Member]) -> Iterator[bytes | Member]:
    """The tar in its order: bytes that are known, and the members whose content lies in files."""
    for member in parts:
        yield _header(member)
        yield member.content if isinstance(member.content, bytes) else member
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
    region = cast("Region", member.content)
    digest = hashlib.sha256()
    for chunk in read_region(region):
        digest.update(chunk)
        yield chunk
    if member.digest and f"sha256:{digest.hexdigest()}" != member.digest:
        raise DamagedBlob(
            member.digest,
            f"blob {member.digest}: {region.name} holds other content"
            f" (sha256:{digest.hexdigest()}); remove that file and make it anew",
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
            f"{region.name}: wanted {region.length} bytes from {region.offset}, it ends"
            f" {left} bytes early; make or copy it anew"
        )
