# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What image_info tells: an Engine's images in few calls, and a JMESPath query over them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import _holdings, _inventory
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine
from ansible_collections.fleet.images.plugins.module_utils._inventory import Image, Json
from ansible_collections.fleet.images.plugins.module_utils._sdk import import_jmespath

# From this API version on, the list tells shared sizes (shared-size=1), and GET /system/df can be
# asked for images alone (https://docs.docker.com/reference/api/engine/version-history/).
SHARED_API = (1, 42)
# Fields that may take one call per image.
COSTLY = ("last_tagged", "platform", "platforms")
# How many images are inspected at once.
_AT_ONCE = 4


class QueryError(Exception):
    """A query that is no JMESPath expression, or does not fit; the message says what is wrong."""


class Query:
    """A JMESPath expression. Raises QueryError, SdkMissing where jmespath is not there."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._jmespath = import_jmespath()
        try:
            self._compiled = self._jmespath.compile(text)
        except self._jmespath.exceptions.JMESPathError as error:
            raise self._wrong(error) from error

    @property
    def costly(self) -> bool:
        """Whether it names a field that may take one call per image."""
        return any(name in COSTLY for name in _fields(self._compiled.parsed))

    def of(self, images: Sequence[Mapping[str, Any]]) -> Any:
        """What the expression makes of the images; raises QueryError."""
        try:
            return self._compiled.search(images)
        except self._jmespath.exceptions.JMESPathError as error:
            raise self._wrong(error) from error

    def _wrong(self, error: Exception) -> QueryError:
        words = " ".join(str(error).split())
        return QueryError(
            f"query {self._text!r}: a JMESPath expression over the list of images was wanted,"
            f" jmespath said: {words}; see https://jmespath.org for the language"
        )


def _fields(node: Json) -> Iterator[str]:
    """The names of fields in a parsed expression."""
    if node.get("type") == "field":
        yield str(node["value"])
    for child in node.get("children") or ():
        if isinstance(child, dict):
            yield from _fields(child)


@dataclass(frozen=True)
class Details:
    """What takes more calls: image ID -> inspection and shared bytes; bytes of all layers."""

    inspected: Mapping[str, Json]
    shared: Mapping[str, int]
    layers: int | None


def look(
    engine: Engine, asked: Sequence[str], details: bool, intermediates: bool
) -> dict[str, Any]:
    """The module's result without `result`; raises EngineError, InvalidReference."""
    wanted = [_inventory.wanted(text) for text in asked]
    images = inventory(engine, intermediates)
    chosen, missing = _inventory.select(wanted, images) if wanted else (images, [])
    more = _details(engine, chosen) if details else Details({}, {}, None)
    entries = [_entry(engine, image, more) for image in chosen]
    return {
        "images": entries,
        "missing": missing,
        "engine": engine.facts.as_dict(),
        "disk": {
            "path": engine.facts.data_path,
            "free": engine.facts.free,
            "layers_bytes": more.layers,
        },
        "bytes": sum(image.size for image in chosen),
    }


def inventory(engine: Engine, intermediates: bool) -> list[Image]:
    """All images of an Engine and who uses them, in two calls; raises EngineError.

    `intermediates`: also what images built by the classic builder stand on, which has no name.
    """
    asked = {"all": int(intermediates), "digests": 1, "shared-size": 1, "manifests": 1}
    images = engine.get("/images/json", **asked)
    return _inventory.read(engine.facts.store, images, engine.get("/containers/json", all=1))


def _details(engine: Engine, images: Sequence[Image]) -> Details:
    """One call per image, several at once, and one for the disk; images may go meanwhile."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = pool.map(engine.inspect, [image.id for image in images])
        inspected = {one.id: told for one, told in zip(images, found) if told is not None}
    # A containerd store would go through all images once more, for one number.
    usage = disk_usage(engine) if engine.facts.store == _holdings.CLASSIC else {}
    shared = {one["Id"]: one.get("SharedSize", -1) for one in usage.get("Images") or ()}
    return Details(inspected, shared, layers_bytes(usage))


def disk_usage(engine: Engine) -> Json:
    """GET /system/df of the images; raises EngineError.

    Before API 1.42 it cannot be asked for these alone, and goes through all containers as well.
    """
    only = {"type": "image"} if engine.speaks(SHARED_API) else {}
    found: Json = engine.get("/system/df", **only)
    return found


def layers_bytes(usage: Json) -> int | None:
    """Bytes of all layers, each once, of GET /system/df; None where it does not tell.

    From API 1.52 on it stands elsewhere (api/types/system/disk_usage.go of moby).
    """
    newer: Json = usage.get("ImageUsage") or usage.get("ImagesDiskUsage") or {}
    told = usage.get("LayersSize", newer.get("TotalSize"))
    return told if isinstance(told, int) else None


def _entry(engine: Engine, image: Image, more: Details) -> dict[str, Any]:
    facts, inspected = engine.facts, more.inspected.get(image.id)
    told = image.platforms
    if told is None and inspected is not None:
        told = tuple(filter(None, [_holdings.inspected_platform(inspected)]))
    shared = image.shared
    if shared is None and more.shared.get(image.id, -1) >= 0:
        shared = more.shared[image.id]
    tagged = ((inspected or {}).get("Metadata") or {}).get("LastTagTime")
    return {
        "name": image.name,
        "id": image.id,
        "references": list(image.references),
        "digests": list(image.digests),
        "platform": _inventory.best(told, facts.platform),
        "platforms": None if told is None else list(told),
        "created": image.created,
        "last_tagged": _inventory.moment(tagged),
        "size": image.size,
        "shared_bytes": shared,
        "unique_bytes": _inventory.unique(facts.store, image.size, shared),
        "containers": [one.as_dict() for one in image.containers],
        "labels": dict(image.labels),
        "dangling": image.dangling,
    }
