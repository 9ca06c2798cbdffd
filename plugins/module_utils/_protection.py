# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images that somebody needs although no container uses them now, and who that is.

Each rule protects rather too much: a pattern that fits two images keeps both.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import (
    _info,
    _lockfile,
    _patterns,
    _pull_words,
)
from ansible_collections.fleet.images.plugins.module_utils._amounts import PolicyError
from ansible_collections.fleet.images.plugins.module_utils._compose import compose_images
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine, EngineError
from ansible_collections.fleet.images.plugins.module_utils._inventory import Image
from ansible_collections.fleet.images.plugins.module_utils._lock import Lock
from ansible_collections.fleet.images.plugins.module_utils._reference import Reference, parse
from ansible_collections.fleet.images.plugins.module_utils._registry_auth import engine_login

Params = Mapping[str, Any]


def protected(engine: Engine, images: Sequence[Image], params: Params) -> dict[str, str]:
    """Image ID -> why it stays; by lock, query, compose files and swarm services.

    Raises EngineError, LockError, OSError, QueryError, SdkMissing, and PolicyError for a query or
    file that protects nothing that can be told.
    """
    found: dict[str, str] = {}
    rules = (
        _of_lock(images, params),
        _of_query(engine, images, params["protect_query"]),
        _of_compose(images, params["compose_files"]),
        _of_services(engine, images) if params["protect_services"] else (),
    )
    for rule in rules:
        for id_, reason in rule:
            found.setdefault(id_, reason)
    return found


def lock_of(params: Params) -> Lock:
    """The lock that was given, empty without one; raises LockError, OSError."""
    if params["lock"] is None and not params["lock_path"]:
        return {}
    return _lockfile.given(params)


def _of_lock(images: Sequence[Image], params: Params) -> Iterator[tuple[str, str]]:
    """By digest: a tag of the lock that names something else by now protects nothing."""
    names: dict[str, str] = {}
    for locked in lock_of(params).values():
        digests = {locked.target.digest}
        for there in locked.platforms.values():
            digests |= {there.manifest.digest, there.config.digest}
        names.update((digest, locked.name) for digest in digests)
    for image in images:
        for digest in (image.id, *(text.rpartition("@")[2] for text in image.digests)):
            if digest in names:
                yield image.id, f"the lock has it as {names[digest]}"
                break


def _of_query(
    engine: Engine, images: Sequence[Image], text: str | None
) -> Iterator[tuple[str, str]]:
    """The images in a list that a JMESPath expression gives: dicts with `id`, IDs, or names."""
    if not text:
        return
    query = _info.Query(text)
    result = query.of(_info.look(engine, [], query.costly, intermediates=True)["images"])
    if not isinstance(result, list):
        raise PolicyError(
            f"protect_query {text!r}: a list of images was wanted, it gives"
            f" {'nothing' if result is None else type(result).__name__};"
            " write it as [?…], as over the images of image_info"
        )
    told = [one.get("id") if isinstance(one, dict) else one for one in result]
    names = [one for one in told if isinstance(one, str)]
    wrong = [one for one in told if not isinstance(one, str)]
    if wrong:
        raise PolicyError(
            f"protect_query {text!r}: a list of images, of IDs or of names was wanted, it gives"
            f" {wrong[0]!r} among others; end it with .id"
        )
    yield from _named(images, names, f"protect_query {text} has it")


def _of_compose(images: Sequence[Image], paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    for path in paths:
        files = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else [path]
        for file in files:
            names = compose_images(_text(Path(file)), _environment(Path(file).parent / ".env"))
            yield from _named(images, names, f"the compose file {file} names it")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _environment(path: Path) -> dict[str, str]:
    """The variables of a file `.env`, as compose fills them in."""
    if not path.is_file():
        return {}
    lines = (line.strip() for line in _text(path).splitlines())
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {
        key.strip().removeprefix("export ").strip(): value.strip().strip("'\"")
        for key, _equals, value in pairs
    }


def _of_services(engine: Engine, images: Sequence[Image]) -> Iterator[tuple[str, str]]:
    """What services of a swarm run, and would go back to; workers know of no services."""
    if not (engine.get("/info").get("Swarm") or {}).get("ControlAvailable"):
        return
    for service in engine.get("/services"):
        specs = [service.get("Spec") or {}, service.get("PreviousSpec") or {}]
        told = [((one.get("TaskTemplate") or {}).get("ContainerSpec") or {}) for one in specs]
        names = [str(one["Image"]) for one in told if one.get("Image")]
        yield from _named(images, names, f"the service {specs[0].get('Name', '')} runs it")


def _named(images: Sequence[Image], names: Iterable[str], reason: str) -> Iterator[tuple[str, str]]:
    """The images that any of the patterns names, whatever is no pattern left out."""
    among = []
    for name in names:
        try:
            among.append(_patterns.pattern(name))
        except PolicyError:
            continue  # Nothing on any Engine has such a name.
    for image in images:
        if _patterns.first(among, image):
            yield image.id, reason


class Registries:
    """Registries that are asked, through an Engine, whether they still serve an image.

    `username`, `password`: for all of them, '' for the logins of the Docker configuration file.
    """

    def __init__(self, engine: Engine, username: str, password: str) -> None:
        self._engine = engine
        self._login = (username, password)
        self._away: dict[str, str] = {}

    def lack(self, image: Image) -> str:
        """Why nobody can say that a registry serves this very image; '' where one does.

        A registry that cannot be reached is asked once: each answer may take a while.
        """
        wrong = "no registry is known that it came from"
        for reference in map(parse, image.digests):
            wrong = self._away.get(reference.registry) or self._ask(reference)
            if not wrong:
                return ""
        return wrong

    def _ask(self, reference: Reference) -> str:
        try:
            login = engine_login(reference.registry, *self._login)
            found = self._engine.digest(reference, login)
        except EngineError as error:
            wrong = f"{reference} was asked for, the Engine said: {error.words}"
            if error.lost or _pull_words.is_passing(error.words):
                self._away[reference.registry] = wrong
            return wrong
        same = found == reference.digest
        return "" if same else f"{reference} was asked for, {found} is served"
