# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a clean-up has to know before it decides: images, their times, and who uses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import _inventory, _ledger
from ansible_collections.fleet.images.plugins.module_utils._conditions import Subject
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine
from ansible_collections.fleet.images.plugins.module_utils._inventory import Image, Json
from ansible_collections.fleet.images.plugins.module_utils._ledger import Ledger, Seen

# How many images or containers are inspected at once.
_AT_ONCE = 4


@dataclass
class Survey:
    """An Engine as it was looked at.

    `tagged`, `used`: image ID -> seconds since 1970, as far as the Engine tells. `ledger`: None
    where none is kept.
    """

    images: list[Image]
    tagged: Mapping[str, int] = field(default_factory=dict)
    used: Mapping[str, int] = field(default_factory=dict)
    ledger: Ledger | None = None

    def subjects(self) -> list[Subject]:
        """The images with their times, as retention wants them."""
        known = self.ledger.images if self.ledger else {}
        return [self._subject(image, known.get(image.id)) for image in self.images]

    def _subject(self, image: Image, seen: Seen | None) -> Subject:
        times = [self.used.get(image.id), seen.used if seen else None]
        return Subject(
            image=image,
            built=_epoch(image.created),
            tagged=self.tagged.get(image.id),
            used=max((time for time in times if time is not None), default=None),
            since=seen.since if seen else None,
        )


def look(engine: Engine, times: bool, ledger_path: str | None, now: int) -> Survey:
    """Looks at all images, nameless ones included, and at their users; raises EngineError.

    Two calls. `times`: whether it matters when images were tagged, a call for each. `ledger_path`:
    the ledger to read, None where last uses do not matter; else a call for each container.
    """
    containers = engine.get("/containers/json", all=1)
    survey = Survey(_inventory.read(engine.facts.store, engine.listed(), containers))
    if times:
        survey.tagged = _last_tags(engine, [image.id for image in survey.images])
    if ledger_path:
        survey.used = _last_uses(engine, containers, now)
        survey.ledger = _ledger.read(Path(ledger_path))
    return survey


def _last_tags(engine: Engine, ids: Sequence[str]) -> dict[str, int]:
    """Image ID -> when it last got a tag, as far as the Engine knows."""

    def one(id_: str) -> int | None:
        metadata = (engine.inspect(id_) or {}).get("Metadata") or {}
        return _epoch(_inventory.moment(metadata.get("LastTagTime")))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        told = zip(ids, pool.map(one, ids))
        return {id_: when for id_, when in told if when is not None}


def _last_uses(engine: Engine, containers: Sequence[Json], now: int) -> dict[str, int]:
    """Image ID -> when a container that is there last ran, or was made."""

    def one(entry: Json) -> tuple[str, int]:
        state = engine.get("/containers/{0}/json", entry["Id"]).get("State") or {}
        if state.get("Running"):
            return str(entry.get("ImageID") or ""), now
        ended = _epoch(_inventory.moment(state.get("FinishedAt")))
        return str(entry.get("ImageID") or ""), ended or int(entry.get("Created") or 0)

    used: dict[str, int] = {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for id_, when in pool.map(one, containers):
            used[id_] = max(when, used.get(id_, 0))
    return used


def _epoch(text: str | None) -> int | None:
    """Seconds since 1970 of a time in ISO 8601, UTC."""
    if text is None:
        return None
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp())


def names(image: Image) -> dict[str, Any]:
    """How results and saved plans name an image."""
    return {
        "name": image.name,
        "id": image.id,
        "references": list(image.references),
        "digests": list(image.digests),
    }
