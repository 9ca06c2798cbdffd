# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What image_search does: what a registry offers, so that somebody can choose a concrete tag."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import _listing, _versions
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine, EngineError
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    DEFAULT_REGISTRY,
    ImageSpec,
    InvalidReference,
    Reference,
    parse,
)
from ansible_collections.fleet.images.plugins.module_utils._registry import (
    Refused,
    Registry,
    RegistryError,
    Unavailable,
)
from ansible_collections.fleet.images.plugins.module_utils._resolve import InMemory, Resolver

# What the Engine asks Docker Hub for at most.
_HUB_LIMIT = 100

Connect = Callable[[], Engine]
Json = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What one run is asked for.

    `repositories`: those whose tags are wanted; none means what `registry` has, of names with
    `term` in them. `match`: which tags. `limit`: how many tags of each repository, or how many
    repositories; 0 for all. `details`: of how many tags to read the manifests. `parallel`:
    requests at a time.
    """

    repositories: Sequence[Reference] = ()
    registry: str = DEFAULT_REGISTRY
    term: str = ""
    match: re.Pattern[str] | None = None
    limit: int = 0
    details: int = 0
    parallel: int = 4


@dataclass
class Found:
    """One repository and its tags; `problem`: why its tags, or details of them, are not known."""

    name: str
    tags: list[Json] = field(default_factory=list)
    total: int = 0
    problem: str = ""


def run(task: Task, registry: Registry, connect: Connect) -> Json:
    """Does the task and returns the module's result, with `failed` where something failed.

    `connect` is called where the Engine is asked. Raises RegistryError, EngineError, SdkError.
    """
    if not task.repositories:
        found = _hub(task, connect()) if task.registry == DEFAULT_REGISTRY else _all(task, registry)
        return {"changed": False, "repositories": found, "msg": f"repositories: {len(found)}"}
    with ThreadPoolExecutor(task.parallel) as pool:
        listed = list(pool.map(lambda one: _list(task, registry, one), task.repositories))
        wanted = [(found, tag) for found in listed for tag in found.tags[: task.details]]
        list(pool.map(lambda pair: _detail(registry, *pair), wanted))
    problems = [found.problem for found in listed if found.problem]
    result: Json = {"changed": False, "repositories": [_entry(found) for found in listed]}
    if problems:
        msg = f"{len(problems)} of {len(listed)} repositories failed: {'; '.join(problems)}"
        return {**result, "failed": True, "msg": msg}
    count = sum(len(found.tags) for found in listed)
    return {**result, "msg": f"repositories: {len(listed)}, tags: {count}"}


def parse_repository(text: str) -> Reference:
    """A repository's name without a tag; raises InvalidReference."""
    reference = parse(text)
    last = text.strip().rpartition("/")[2]
    if reference.digest or ":" in last:
        raise InvalidReference(
            f"{text!r}: wanted a repository, as registry.example/shop/web, there is a tag or digest"
            " behind it; leave that out, or look for it with match"
        )
    return Reference(reference.registry, reference.repository)


def parse_registry(text: str) -> str:
    """A registry's name, `host` or `host:port`; raises InvalidReference."""
    with contextlib.suppress(InvalidReference):
        reference = parse(f"{text.strip()}/repository")
        if reference.repository in ("repository", "library/repository"):
            return reference.registry
    raise InvalidReference(
        f"{text!r} is no registry; wanted host or host:port, as registry.example:5000"
    )


def _hub(task: Task, engine: Engine) -> list[Json]:
    """Docker Hub has no catalogue, but a search of its own, in its own order."""
    try:
        found = engine.search(task.term, min(task.limit or _HUB_LIMIT, _HUB_LIMIT))
    except EngineError as error:
        raise EngineError(
            f"{error}; it is the Engine that asks Docker Hub: give it a way there, or name another"
            " registry"
        ) from error
    return [
        {
            "name": parse_repository(str(one.get("name"))).name,
            "description": str(one.get("description") or ""),
            "stars": int(one.get("star_count") or 0),
            "official": bool(one.get("is_official")),
        }
        for one in found
    ]


def _all(task: Task, registry: Registry) -> list[Json]:
    names = sorted(set(_listing.catalogue(registry, task.registry)))
    wanted = [name for name in names if task.term.lower() in name.lower()]
    return [{"name": f"{task.registry}/{name}"} for name in wanted[: task.limit or None]]


def _list(task: Task, registry: Registry, reference: Reference) -> Found:
    """The repository's tags; what fails is noted."""
    found = Found(reference.name)
    try:
        tags = _listing.tags(registry, reference)
    except RegistryError as error:
        found.problem = str(error)
        return found
    found.total = len(set(tags))
    wanted = [tag for tag in tags if task.match is None or task.match.search(tag)]
    found.tags = [
        {"tag": tag, "name": f"{reference.name}:{tag}", "kind": _versions.kind_of(tag)}
        for tag in _versions.newest_first(wanted)[: task.limit or None]
    ]
    return found


def _detail(registry: Registry, found: Found, tag: Json) -> None:
    """Adds what the tag names. One that names no image is said there, and is no failure."""
    try:
        spec = ImageSpec(parse(tag["name"]))
        image = Resolver(registry, spec, InMemory()).resolve(None, ())
    except (RegistryError, InvalidReference) as error:
        tag["reason"] = str(error)
        if isinstance(error, (Unavailable, Refused)):
            found.problem = found.problem or str(error)
        return
    tag["digest"] = image.target.digest
    tag["platforms"] = [
        {
            "platform": platform,
            "id": one.config.digest,
            "digest": one.manifest.digest,
            "bytes": sum(blob.size for blob in image.blobs(platform)),
        }
        for platform, one in sorted(image.platforms.items())
    ]


def _entry(found: Found) -> Json:
    entry: Json = {"name": found.name, "tags": found.tags, "total": found.total}
    return {**entry, "reason": found.problem} if found.problem else entry
