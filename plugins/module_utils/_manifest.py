# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Manifests and what they are made of, as JSON and as the lock's values. No I/O.

By https://github.com/opencontainers/image-spec/blob/main/manifest.md. Who reads JSON here says to
the user where it came from: what is not as it should be raises ValueError, LookupError, TypeError,
AttributeError or ArithmeticError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._lock import Blob, Layer, PlatformImage
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    check_digest,
    platform_of,
)

Json = Mapping[str, Any]

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"


def descriptor(blob: Blob) -> dict[str, Any]:
    """The JSON that points to a blob."""
    return {"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size}


def blob_of(entry: Json) -> Blob:
    """The blob that a descriptor points to; its digest may become a path."""
    return Blob(check_digest(entry["digest"]), int(entry["size"]), str(entry["mediaType"]))


def manifest_of(config: Blob, layers: Sequence[Layer]) -> dict[str, Any]:
    """A manifest of these; `layers` lowest first."""
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(config),
        "layers": [descriptor(layer) for layer in layers],
    }


def diff_ids_of(settings: Json) -> list[str]:
    """The diff IDs of a config, lowest first; none of an image without layers."""
    return [check_digest(one) for one in (settings.get("rootfs") or {}).get("diff_ids") or ()]


def manifests_of(index: Json) -> dict[str, Blob]:
    """The manifests of an index by platform; attestations state none.

    Of several for one platform, the first.
    """
    found: dict[str, Blob] = {}
    for entry in index["manifests"]:
        platform = platform_of(entry.get("platform") or {})
        if platform:
            found.setdefault(platform, blob_of(entry))
    return found


def platform_image(
    manifest: Blob, content: Json, settings: Json, platform: str = ""
) -> PlatformImage:
    """The image of a manifest's content and its config's, `settings`.

    `platform`: what an index states about it, '' for what the config states.
    """
    blobs = [blob_of(entry) for entry in content["layers"]]
    diff_ids = diff_ids_of(settings)
    if len(diff_ids) != len(blobs):
        raise ValueError(
            f"{manifest.digest}: its config names {len(diff_ids)} layers, its manifest {len(blobs)}"
        )
    layers = tuple(
        Layer(blob.digest, blob.size, blob.media_type, diff_id)
        for blob, diff_id in zip(blobs, diff_ids)
    )
    config = blob_of(content["config"])
    return PlatformImage(platform or platform_of(settings), manifest, config, layers)
