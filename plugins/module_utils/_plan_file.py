# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plan of a clean-up in a file: made at one time, looked at, and done at another."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._amounts import PolicyError
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine
from ansible_collections.fleet.images.plugins.module_utils._inventory import Image
from ansible_collections.fleet.images.plugins.module_utils._layout import write_atomically
from ansible_collections.fleet.images.plugins.module_utils._removal import Entry

VERSION = 1


@dataclass(frozen=True)
class Saved:
    """An image of a saved plan, with the names that it had."""

    name: str
    id: str
    names: frozenset[str]
    reason: str

    def differs(self, image: Image) -> str:
        """What is another than when the plan was made; '' for nothing."""
        there = {*image.references, *image.digests}
        if there == self.names:
            return ""
        return (
            f"it had the names {_list(self.names)} when the plan was made,"
            f" and has {_list(there)} now"
        )

    def settled(self, image: Image | None, reason: str) -> Entry:
        """What the module tells of an image that is gone, or is left as it is."""
        entry = Entry(self.name, image)
        entry.end("kept" if image else "none", reason)
        return entry


def _list(names: frozenset[str] | set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def dumps(entries: Sequence[Mapping[str, Any]], engine: Engine) -> bytes:
    """The content of the file for the module's `plan`; the same for the same plan."""
    content = {"version": VERSION, "engine": _identity(engine), "plan": list(entries)}
    return json.dumps(content, indent=2, sort_keys=True).encode() + b"\n"


def write(path: Path, content: bytes, dry_run: bool) -> bool:
    """Whether the file had another content; then it gets this one, but in a dry run.

    Raises OSError.
    """
    try:
        if path.read_bytes() == content:
            return False
    except FileNotFoundError:
        pass
    if not dry_run:
        write_atomically(path, content, 0o600)
    return True


def read(path: str, engine: Engine) -> list[Saved]:
    """The images of a saved plan; raises OSError, PolicyError where it is none for this Engine."""
    try:
        content = json.loads(Path(path).read_bytes())
        version, made_for = content["version"], content["engine"]
        entries = [_saved(one) for one in content["plan"]] if version == VERSION else []
    except (ValueError, LookupError, TypeError) as error:
        raise PolicyError(
            f"{path}: a plan of image_prune was wanted, the file is none"
            f" ({type(error).__name__}: {error}); make one with plan_path"
        ) from error
    here = _identity(engine)
    if version != VERSION or made_for != here:
        raise PolicyError(
            f"{path}: a plan for the Engine {here} was wanted, this one is of version {version!r}"
            f" for the Engine {made_for}; make one here with plan_path"
        )
    return entries


def _saved(entry: Mapping[str, Any]) -> Saved:
    names = frozenset(map(str, (*entry["references"], *entry["digests"])))
    return Saved(str(entry["name"]), str(entry["id"]), names, str(entry["reason"]))


def _identity(engine: Engine) -> str:
    """What tells this Engine from others, also after it is emptied."""
    return str(engine.get("/info").get("ID") or "")
