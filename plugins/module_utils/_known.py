# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What manifests in the store hold of a lock's layers, for Engines whose API names no layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._documents import (
    descriptor,
    entries,
    parse_object,
    read_layers,
    stated_platform,
)
from ansible_collections.fleet.images.plugins.module_utils._layout import Layout, LayoutError
from ansible_collections.fleet.images.plugins.module_utils._lock import (
    Blob,
    Layer,
    Lock,
    LockedImage,
)
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    InvalidReference,
    check_digest,
    platform_of,
)
from ansible_collections.fleet.images.plugins.module_utils._registry import RegistryError

_FAILURES = (RegistryError, LayoutError, InvalidReference, OSError)


def known(layout: Layout, lock: Lock) -> list[dict[str, Any]]:
    """What manifests in the store hold of this lock's layers: `_holdings` reads it.

    One entry for each manifest of the lock, and for each that the store's index names, now or
    formerly, and that shares a layer with the lock: `digest`, `indexes` (those that name it),
    `platform` and `blobs` (the shared layers). An Engine that has the manifest has these blobs.
    """
    found: dict[str, dict[str, Any]] = {}
    wanted = {layer.digest for image in lock.values() for layer in layers_of(image)}

    def add(digest: str, index: str, platform: str, layers: Sequence[Blob]) -> None:
        shared = sorted({layer.digest for layer in layers} & wanted)
        if shared:
            fresh = {"digest": digest, "indexes": [], "platform": platform, "blobs": shared}
            entry = found.setdefault(digest, fresh)
            if index and index not in entry["indexes"]:
                entry["indexes"] = sorted([*entry["indexes"], index])

    for image in lock.values():
        for one in image.platforms.values():
            index = image.target.digest if image.target.digest != one.manifest.digest else ""
            add(one.manifest.digest, index, one.platform, one.layers)
    for target in {str(entry.get("digest")): None for entry in layout.names()}:
        for manifest in _manifests_of(layout, target):
            add(*manifest)
    return [found[digest] for digest in sorted(found)]


def _manifests_of(layout: Layout, target: str) -> Iterator[tuple[str, str, str, list[Blob]]]:
    """Digest, index, platform and layers of what a name of the store leads to, as far as it has it.

    What cannot be read tells nothing, and is no reason to fail.
    """
    children: list[tuple[str, str]] = []
    try:
        document = parse_object("", layout.read(check_digest(target)))
        if "manifests" in document:
            for entry in entries("", document, "manifests"):
                children.append((descriptor("", entry).digest, stated_platform(entry)))
        else:
            config = descriptor("", document.get("config"))
            children.append((target, platform_of(parse_object("", layout.read(config.digest)))))
    except _FAILURES:
        return
    for digest, platform in children:
        if platform and layout.has(digest):
            try:
                layers = read_layers("", parse_object("", layout.read(digest)))
            except _FAILURES:
                continue
            yield digest, "" if digest == target else target, platform, layers


def layers_of(image: LockedImage | None) -> Iterator[Layer]:
    """The layers of all platforms of an image; none of None."""
    for one in image.platforms.values() if image else ():
        yield from one.layers
