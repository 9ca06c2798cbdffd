# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is under a tag where a build's result goes: in a registry, in the Engine, in a store.

Each place tells the same of an image: its manifests by platform, attestations aside, since these
name the time of a build and differ every time; and its labels, among them the fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

from ansible_collections.fleet.images.plugins.module_utils import _holdings
from ansible_collections.fleet.images.plugins.module_utils._cache import Documents
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine, EngineError
from ansible_collections.fleet.images.plugins.module_utils._layout import (
    Layout,
    LayoutError,
    name_of,
    to_json,
)
from ansible_collections.fleet.images.plugins.module_utils._lock import Blob, LockedImage
from ansible_collections.fleet.images.plugins.module_utils._manifest import (
    INDEX,
    MANIFEST,
    manifests_of,
    platform_image,
)
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    ImageSpec,
    Reference,
    platform_of,
)
from ansible_collections.fleet.images.plugins.module_utils._registry import NotFound, Registry
from ansible_collections.fleet.images.plugins.module_utils._resolve import Resolver

INSPECTED_MANIFESTS_API = (1, 48)
"""From this API version on, GET /images/{name}/json?manifests=1 tells an image's manifests."""
# What a document raises that is not what it should be.
_WRONG = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, LayoutError)


@dataclass(frozen=True)
class Found:
    """One image as it is under a tag.

    `digest`: of its index or manifest, '' where the place does not tell. `id`: of its config, of
    the first platform in alphabetical order, or the Engine's own ID. `platforms`: platform -> what
    stands for its content, the manifest's digest where that is known. `sizes`: platform -> bytes.
    `image`: its entry in a lock, None from an Engine. `tells_platforms`: whether `platforms` names
    all that are there.
    """

    digest: str
    id: str
    platforms: Mapping[str, str]
    sizes: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    image: LockedImage | None = None
    tells_platforms: bool = True


class Place(Protocol):
    """Where results go."""

    kind: str

    def look(self, reference: Reference) -> Found | None:
        """What is under the tag; None for nothing."""


class InRegistry:
    """The registry that the tag itself names."""

    kind = "registry"

    def __init__(self, registry: Registry, remember: bool = False) -> None:
        """`remember`: whether its documents may be kept for the next time."""
        self._registry = registry
        self._remember = remember

    def look(self, reference: Reference) -> Found | None:
        """As the registry serves it; raises RegistryError, SdkError."""
        documents = Documents(str(reference), self._remember)
        spec = ImageSpec(reference)
        try:
            image = Resolver(self._registry, spec, documents).resolve(reference.digest, ())
        except NotFound:
            return None
        documents.save()
        return of_image(image, documents.__getitem__)


class InStore:
    """An image layout directory."""

    kind = "store"

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def look(self, reference: Reference) -> Found | None:
        """As the store has it, if it has all of it; raises LayoutError for an unusable store."""
        named = (one for one in self._layout.names() if name_of(one) == str(reference))
        entry = next(named, None)
        if entry is None:
            return None
        try:
            found = of_documents(str(reference), entry["digest"], self._layout.read)
        except _WRONG:
            return None
        blobs = found.image.all_blobs.values() if found.image else ()
        whole = all(self._layout.has(blob.digest, blob.size) for blob in blobs)
        return found if whole else None


class InEngine:
    """The Engine's own images."""

    kind = "engine"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def look(self, reference: Reference) -> Found | None:
        """As the Engine has it; raises EngineError."""
        inspected = self._engine.inspect(reference.tagged)
        if inspected is None:
            return None
        labels = (inspected.get("Config") or {}).get("Labels") or {}
        id_, own = str(inspected["Id"]), _holdings.inspected_platform(inspected)
        size = {own: int(inspected.get("Size") or 0)}
        if self._engine.facts.store == _holdings.CLASSIC:
            return Found("", id_, {own: id_}, size, labels)
        if not self._engine.speaks(INSPECTED_MANIFESTS_API):
            content = {own: _content_of(inspected)}
            return Found(id_, id_, content, size, labels, tells_platforms=False)
        told = self._manifests(id_)
        if told is None:
            return None
        there = [one for one in told if one.get("Kind") == "image" and one.get("Available")]
        platforms = {platform_of(one["ImageData"]["Platform"]): one for one in there}
        return Found(
            id_,
            id_,
            {name: str(one["Descriptor"]["digest"]) for name, one in platforms.items()},
            {name: int(one["Size"]["Content"]) for name, one in platforms.items()},
            labels,
        )

    def _manifests(self, id_: str) -> Sequence[Mapping[str, Any]] | None:
        """Those of an image; None where it has gone since it was looked at."""
        try:
            told = self._engine.get("/images/{0}/json", id_, manifests=1)
        except EngineError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        return told.get("Manifests") or ()


def _content_of(inspected: Mapping[str, Any]) -> str:
    """Stands for the config and the layers, where an Engine tells no digest of these.

    Engine 26 with the containerd store names an image by its index, attestations included.
    """
    parts = {name: inspected.get(name) for name in ("Created", "Config", "RootFS", "Architecture")}
    return f"content:{hashlib.sha256(to_json(parts)).hexdigest()}"


def of_image(image: LockedImage, read: Callable[[str], bytes]) -> Found:
    """An image of a lock whose configs `read` gives by their digest."""
    platforms = sorted(image.platforms.items())
    config = json.loads(read(platforms[0][1].config.digest))
    return Found(
        image.target.digest,
        platforms[0][1].config.digest,
        {name: one.manifest.digest for name, one in platforms},
        {
            name: sum(blob.size for blob in (one.manifest, one.config, *one.layers))
            for name, one in platforms
        },
        (config.get("config") or {}).get("Labels") or {},
        image,
    )


def locked(key: str, digest: str, read: Callable[[str], bytes]) -> LockedImage:
    """The image of an index or manifest as a lock has it; takes and raises as `of_documents`."""
    content = read(digest)
    document = json.loads(content)
    is_index = "manifests" in document
    target = Blob(digest, len(content), document.get("mediaType") or (MANIFEST, INDEX)[is_index])
    entries = {"": target}
    if is_index:
        entries = manifests_of(document)
    platforms = {}
    for name, manifest in entries.items():
        parsed = json.loads(read(manifest.digest))
        settings = json.loads(read(str(parsed["config"]["digest"])))
        one = platform_image(manifest, parsed, settings, name)
        platforms[one.platform] = one
    return LockedImage(key, target, platforms)


def of_documents(key: str, digest: str, read: Callable[[str], bytes]) -> Found:
    """The image of an index or manifest, whose documents `read` gives by their digest.

    `key`: its name in a lock. Raises what `read` raises, and one of ValueError, LookupError,
    TypeError, AttributeError, ArithmeticError for a document that is not what it should be.
    """
    return of_image(locked(key, digest, read), read)
