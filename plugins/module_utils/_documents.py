# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What indexes, manifests and configs say: JSON documents of the OCI image specification.

Everything comes from a registry and is checked before it is believed. No I/O.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._lock import Blob
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    InvalidReference,
    check_digest,
    platform_of,
    runnable,
)
from ansible_collections.fleet.images.plugins.module_utils._registry import RegistryError

Json = Mapping[str, Any]

_REFERENCE_TYPE = "vnd.docker.reference.type"
_REFERENCE_DIGEST = "vnd.docker.reference.digest"
_ATTESTATION = "attestation-manifest"


def choose(name: str, index: Json, platforms: Sequence[str]) -> dict[str, Blob]:
    """The manifests of an index that machines of these platforms run best, by their own platform.

    Attestations are left out: they are no images, and state no platform
    (https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md).
    Raises RegistryError for a platform that the index has nothing for.
    """
    there = _stated(name, index)
    return {platform: there[platform] for platform in best(name, platforms, there)}


def offered(name: str, index: Json) -> dict[str, Blob]:
    """The manifests of all platforms of Linux that an index has; raises RegistryError for none.

    Images of Windows name layers that lie outside of their registry.
    """
    there = _stated(name, index)
    found = {one: blob for one, blob in there.items() if one.startswith("linux/")}
    if not found:
        raise RegistryError(no_platform(name, ["linux"], there))
    return found


def _stated(name: str, index: Json) -> dict[str, Blob]:
    """The manifests of an index that state a platform, by it; the first of several counts."""
    found: dict[str, Blob] = {}
    for entry in entries(name, index, "manifests"):
        platform = stated_platform(entry)
        if platform and platform not in found:
            found[platform] = descriptor(name, entry)
    return found


def attestations_of(name: str, index: Json, manifest: str) -> list[Blob]:
    """The manifests of the attestations that an index has about this manifest (a digest).

    https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md
    """
    return [
        descriptor(name, entry)
        for entry in entries(name, index, "manifests")
        if _annotations(entry).get(_REFERENCE_TYPE) == _ATTESTATION
        and _annotations(entry).get(_REFERENCE_DIGEST) == manifest
    ]


def best(name: str, platforms: Sequence[str], offered: Mapping[str, Any]) -> list[str]:
    """Of what is offered, what machines of these platforms run best; raises RegistryError."""
    chosen = {
        wanted: next((one for one in runnable(wanted) if one in offered), "")
        for wanted in platforms
    }
    lacking = [wanted for wanted, found in chosen.items() if not found]
    if lacking:
        raise RegistryError(no_platform(name, lacking, offered))
    return list(dict.fromkeys(chosen.values()))


def read_layers(name: str, manifest: Json) -> list[Blob]:
    """The layers of a manifest, lowest first; raises RegistryError for foreign ones."""
    blobs = []
    for entry in entries(name, manifest, "layers"):
        blob = descriptor(name, entry)
        if entry.get("urls"):
            raise RegistryError(
                f"{name}: its layer {blob.digest} lies outside of the registry ({blob.media_type}),"
                " which is not supported; build the image on a base without foreign layers"
            )
        blobs.append(blob)
    return blobs


def diff_ids(name: str, settings: Json, layers: int, config: Blob) -> list[str]:
    """The diff IDs of a config (image-spec, config.md), one per layer; raises RegistryError."""
    rootfs = settings.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    found = diff_ids if isinstance(diff_ids, list) else []
    if len(found) != layers:
        raise RegistryError(
            f"{name}: wanted a config with the diff IDs of {layers} layers, it has {len(found)}"
            f" ({config.media_type}); it is no container image, or it was built wrong"
        )
    return [_digest(name, diff_id) for diff_id in found]


def stated_platform(entry: Json) -> str:
    """The platform of an index's entry; '' for an attestation, and for one that states none."""
    if _annotations(entry).get(_REFERENCE_TYPE) == _ATTESTATION:
        return ""
    try:
        return platform_of(entry.get("platform") or {})
    except (InvalidReference, TypeError, AttributeError):
        return ""


def _annotations(entry: Json) -> Json:
    found = entry.get("annotations")
    return found if isinstance(found, dict) else {}


def no_platform(name: str, lacking: Sequence[str], offered: Mapping[str, Any]) -> str:
    """The sentence about platforms that an image lacks."""
    there = ", ".join(sorted(platform or "none" for platform in offered)) or "none"
    return (
        f"{name}: wanted for {', '.join(lacking)}, the registry has it for {there}; choose one of"
        " these with platform or platforms"
    )


def parse_object(name: str, content: bytes) -> Json:
    """A JSON object; raises RegistryError, naming the image, for anything else."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"{name}: wanted a JSON object, found none; push it anew") from error
    if not isinstance(document, dict):
        raise RegistryError(f"{name}: wanted a JSON object, found another value; push it anew")
    return document


def entries(name: str, document: Json, key: str) -> list[dict[str, Any]]:
    """The objects under a key of a document; raises RegistryError where it has no such list."""
    entries = document.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise RegistryError(f"{name}: wanted a list of {key} in its manifest; push it anew")
    return entries


def descriptor(name: str, entry: Any) -> Blob:
    """A descriptor (image-spec, descriptor.md), checked; raises RegistryError."""
    size = entry.get("size") if isinstance(entry, dict) else None
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise RegistryError(
            f"{name}: wanted a descriptor with a size in its manifest; push it anew"
        )
    return Blob(_digest(name, entry.get("digest")), size, str(entry.get("mediaType") or ""))


def _digest(name: str, value: Any) -> str:
    """A digest that the registry sent; it becomes a path, so it is checked."""
    try:
        return check_digest(str(value))
    except InvalidReference as error:
        raise RegistryError(f"{name}: {error}; push it anew") from error
