# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Docker archives without an OCI index, read as the layout that they would have been.

Engines before 25, podman, skopeo, kaniko and jib write `manifest.json`, configs and layers, and no
OCI manifests (https://github.com/moby/moby/blob/v24.0.0/image/spec/v1.2.md). Here each image gets a
manifest of its own, spelled to the byte as Engines from 25 on spell it: the image is loaded without
names and verified like any other, and it is the same one whichever Engine saved it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._bundle import (
    BundleError,
    Region,
    blob_name,
    read_region,
)
from ansible_collections.fleet.images.plugins.module_utils._layout import digest_of, to_json
from ansible_collections.fleet.images.plugins.module_utils._lock import Blob
from ansible_collections.fleet.images.plugins.module_utils._manifest import (
    CONFIG,
    MANIFEST,
    descriptor,
)
from ansible_collections.fleet.images.plugins.module_utils._reference import check_digest
from ansible_collections.fleet.images.plugins.module_utils._tar import SMALL

_LAYER = "application/vnd.oci.image.layer.v1.tar"
# What a compressed layer begins with, and what its media type then ends with.
_COMPRESSED = {b"\x1f\x8b": "+gzip", b"\x28\xb5\x2f\xfd": "+zstd"}
_HEX = re.compile(r"[0-9a-f]{64}")


def as_layout(members: Mapping[str, Region]) -> dict[str, bytes | Region]:
    """The members of an OCI image layout with the same images; `members` are the archive's.

    An uncompressed layer is known by its diff ID, and compared with it when it is streamed, as all
    blobs are; a compressed one is read here, for its digest. Raises BundleError for a config that
    is not what its name says and for a layer that is not there; LookupError, TypeError, ValueError
    or AttributeError for JSON of another form.
    """
    maker = _Maker(members)
    entries = json.loads(small(members["manifest.json"]))
    made = [maker.image(entry) for entry in entries]
    index = {"schemaVersion": 2, "manifests": [manifest for manifest, _entry in made]}
    docker = [entry for _manifest, entry in made]
    return {**maker.blobs, "index.json": to_json(index), "manifest.json": to_json(docker)}


def small(content: bytes | Region) -> bytes:
    """The bytes of a small member; raises BundleError for a large one."""
    if isinstance(content, bytes):
        return content
    if content.length > SMALL:
        raise BundleError(
            f"{content.name}: {content.length} bytes of JSON, at most {SMALL} are wanted"
        )
    return b"".join(read_region(content))


class _Maker:
    """Makes manifests; `blobs` are the layout's blobs so far, by member name."""

    def __init__(self, members: Mapping[str, Region]) -> None:
        self._members = members
        self._compressed: dict[Region, dict[str, Any]] = {}
        self.blobs: dict[str, bytes | Region] = {}

    def image(self, entry: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The entries of one image in `index.json` and in `manifest.json`."""
        config = small(self._member(str(entry["Config"])))
        named = _HEX.search(entry["Config"])
        if named and digest_of(config) != f"sha256:{named[0]}":
            name = entry["Config"]
            raise BundleError(f"{name}: the archive holds other content under it; make it anew")
        diff_ids = json.loads(config)["rootfs"].get("diff_ids") or []
        names = entry.get("Layers") or []
        if len(names) != len(diff_ids):
            raise ValueError(
                f"{entry['Config']} names {len(diff_ids)} layers, manifest.json {len(names)}"
            )
        layers = [self._layer(str(name), check_digest(one)) for name, one in zip(names, diff_ids)]
        content = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._put(config, CONFIG),
            "layers": layers,
        }
        docker = {"Config": blob_name(digest_of(config)), "RepoTags": entry.get("RepoTags")}
        manifest = json.dumps(content, separators=(",", ":")).encode()
        return self._put(manifest, MANIFEST), docker

    def _member(self, name: str) -> Region:
        if name not in self._members:
            raise BundleError(
                f"{self._members['manifest.json'].name}: wanted {name}, which its manifest.json"
                " names, found none; make it anew"
            )
        return self._members[name]

    def _layer(self, name: str, diff_id: str) -> dict[str, Any]:
        region = self._member(name)
        if region not in self._compressed:
            self._compressed[region] = _if_compressed(region)
        found = self._compressed[region] or descriptor(Blob(diff_id, region.length, _LAYER))
        self.blobs[blob_name(found["digest"])] = region
        return found

    def _put(self, content: bytes, media_type: str) -> dict[str, Any]:
        digest = digest_of(content)
        self.blobs[blob_name(digest)] = content
        return descriptor(Blob(digest, len(content), media_type))


def _if_compressed(region: Region) -> dict[str, Any]:
    """The descriptor of a compressed layer, {} for one that is a plain tar."""
    first = next(read_region(region), b"")
    kind = next((kind for magic, kind in _COMPRESSED.items() if first.startswith(magic)), "")
    if not kind:
        return {}
    digest = hashlib.sha256()
    for chunk in read_region(region):
        digest.update(chunk)
    return descriptor(Blob(f"sha256:{digest.hexdigest()}", region.length, _LAYER + kind))
