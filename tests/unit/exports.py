# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an Engine exports, in both shapes of `docker save`, made from images of a store."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from engine_stub import EngineStub
from images import Store, digest_of

from ansible_collections.fleet.images.plugins.module_utils._lock import LockedImage, PlatformImage

Export = Callable[["list[str]"], bytes]


def tar_of(files: Iterable[tuple[str, bytes | str | None]]) -> bytes:
    """A tar of files: their content, the target of a symbolic link, or None for a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def plain(store: Store, one: PlatformImage) -> list[bytes]:
    """The tars of an image's layers."""
    return [gzip.decompress(store.layout.path(layer.digest).read_bytes()) for layer in one.layers]


def _id(image: LockedImage, platform: str, classic: bool) -> str:
    return image.on(platform).config.digest if classic else image.target.digest


def old_shape(store: Store, images: Sequence[LockedImage], platform: str = "linux/amd64") -> Export:
    """As Engines before 25 write it: a repeated layer is a link to the first."""

    def export(ids: list[str]) -> bytes:
        files: dict[str, bytes | str | None] = {}
        seen: dict[bytes, str] = {}
        entries = []
        for image in images:
            one = image.on(platform)
            if _id(image, platform, classic=True) not in ids:
                continue
            names = []
            for number, content in enumerate(plain(store, one)):
                directory = digest_of(f"{one.config.digest} {number}".encode())[7:]
                files[f"{directory}/"] = None
                files[f"{directory}/VERSION"] = b"1.0"
                files[f"{directory}/json"] = b"{}"
                first = seen.setdefault(content, f"{directory}/layer.tar")
                names.append(f"{directory}/layer.tar")
                files[names[-1]] = content if first == names[-1] else f"../{first}"
            config = f"{one.config.digest[7:]}.json"
            files[config] = store.layout.path(one.config.digest).read_bytes()
            entries.append({"Config": config, "RepoTags": None, "Layers": names})
        files["manifest.json"] = json.dumps(entries).encode()
        return tar_of(files.items())

    return export


def new_shape(store: Store, images: Sequence[LockedImage], platform: str = "linux/amd64") -> Export:
    """As a classic store writes it from Engine 25 on: uncompressed layers under their diff IDs."""

    def export(ids: list[str]) -> bytes:
        blobs: dict[str, bytes] = {}
        for image in images:
            one = image.on(platform)
            if _id(image, platform, classic=True) in ids:
                contents = [store.layout.path(one.config.digest).read_bytes()]
                contents += [*plain(store, one), b'{"a manifest of": "its own"}']
                blobs.update({digest_of(content): content for content in contents})
        return _layout_tar(blobs)

    return export


def originals(store: Store, images: Sequence[LockedImage], without: Sequence[str] = ()) -> Export:
    """As a containerd store writes it: all that it has, byte for byte; less some digests."""

    def export(ids: list[str]) -> bytes:
        blobs: dict[str, bytes] = {}
        for image in images:
            if image.target.digest in ids:
                wanted = {blob.digest for on in image.platforms for blob in image.blobs(on)}
                for digest in wanted - set(without):
                    blobs[digest] = store.layout.path(digest).read_bytes()
        return _layout_tar(blobs)

    return export


def _layout_tar(blobs: dict[str, bytes]) -> bytes:
    files: dict[str, Any] = {"blobs/": None, "blobs/sha256/": None}
    files.update({f"blobs/sha256/{one[7:]}": blobs[one] for one in sorted(blobs)})
    small = {"index.json": b"{}", "manifest.json": b"[]", "oci-layout": b"{}"}
    return tar_of({**files, **small}.items())


def exporting(stub: EngineStub, store: Store, *images: LockedImage, platform: str = "") -> None:
    """Puts images into an Engine, which exports them as its kind does."""
    on = platform or "linux/amd64"
    for image in images:
        stub.hold(image, platform=on)
    stub.export = old_shape(store, images, on) if stub.classic else originals(store, images)
