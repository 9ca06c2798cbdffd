# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which blob of the store holds which layer: diff ID -> descriptor.

A classic Engine gives layers uncompressed. With this index a layer is compressed once, and never
where a registry has brought it already. One small file for each, `diff-ids/sha256/<hex>`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from ansible_collections.fleet.images.plugins.module_utils._layout import (
    Layout,
    to_json,
    write_atomically,
)
from ansible_collections.fleet.images.plugins.module_utils._lock import Layer, LockedImage
from ansible_collections.fleet.images.plugins.module_utils._manifest import descriptor

GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
# gzip loads on every Engine, zstd not on 20.10. Docker's own name means the same bytes.
_GZIP = (GZIP_LAYER, "application/vnd.docker.image.rootfs.diff.tar.gzip")


def find(layout: Layout, diff_id: str) -> Layer | None:
    """The gzip layer that the store has of this diff ID; an entry whose blob is gone is none."""
    try:
        entry = json.loads(_path(layout, diff_id).read_bytes())
        layer = Layer(str(entry["digest"]), int(entry["size"]), GZIP_LAYER, diff_id)
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return layer if layout.has(layer.digest, layer.size) else None


def keep(layout: Layout, layer: Layer) -> None:
    """Notes that the store has this layer; raises OSError."""
    path = _path(layout, layer.diff_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, to_json(descriptor(replace(layer, media_type=GZIP_LAYER))))


def note(layout: Layout, image: LockedImage) -> None:
    """Notes the gzip layers of an image that the store has; raises OSError.

    Those that are noted already are only looked at.
    """
    layers = {layer.diff_id: layer for one in image.platforms.values() for layer in one.layers}
    for layer in layers.values():
        there = layer.media_type in _GZIP and layout.has(layer.digest, layer.size)
        if there and find(layout, layer.diff_id) is None:
            keep(layout, layer)


def _path(layout: Layout, diff_id: str) -> Path:
    return layout.root / "diff-ids" / diff_id.replace(":", "/", 1)
