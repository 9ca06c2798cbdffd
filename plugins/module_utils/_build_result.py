# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What buildx_build tells of a build, by what was under its tags before and what is there now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import _built
from ansible_collections.fleet.images.plugins.module_utils._build_inputs import Inputs
from ansible_collections.fleet.images.plugins.module_utils._build_plan import Decision
from ansible_collections.fleet.images.plugins.module_utils._fingerprint import of_labels
from ansible_collections.fleet.images.plugins.module_utils._lock import dump
from ansible_collections.fleet.images.plugins.module_utils._reference import Reference

Key = tuple[str, Reference]
Found = Mapping[Key, "_built.Found | None"]
"""What is under each tag, by the kind of place and the tag; None for nothing."""


@dataclass
class Outcome:
    """One build. `told`: what the build itself adds to the result. `dry_run`: it is foretold."""

    params: Mapping[str, Any]
    tags: Sequence[Reference]
    inputs: Inputs
    decision: Decision
    before: Found
    after: Found
    dry_run: bool = False
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether a tag names other content than before; what `outputs` writes is not compared."""
        if self.dry_run or self.params["outputs"]:
            return self.decision.build
        return is_moved(self.before, self.after)

    def _moved(self, key: Key) -> bool:
        return _platforms(self.before[key]) != _platforms(self.after[key])

    def as_result(self) -> dict[str, Any]:
        """The module's result, without its times."""
        found = next((one for one in self.after.values() if one), None)
        # What a build will give is not known before it.
        known = None if self.dry_run and self.changed else found
        return {
            "changed": self.changed,
            "msg": self._sentence(),
            "images": [self._image(tag) for tag in self.tags],
            "digest": known.digest if known else "",
            "platforms": _sizes(known),
            "fingerprint": self.inputs.fingerprint.digest,
            "bases": dict(self.inputs.bases),
            "lock": self._lock() if known else None,
            "context": {"files": self.inputs.tree.files, "bytes": self.inputs.tree.bytes},
            "steps": 0,
            "cached_steps": 0,
            "diff": self._diff(),
            **self.told,
        }

    def _image(self, tag: Reference) -> dict[str, Any]:
        keys = [key for key in self.after if key[1] == tag]
        found = next((self.after[key] for key in keys if self.after[key]), None)
        acted = any(map(self._moved, keys)) if keys and not self.dry_run else self.changed
        known = None if self.dry_run and acted else found
        verb = "pushed" if self.params["push"] else "built"
        return {
            "name": str(tag),
            "id": known.id if known else "",
            "digest": known.digest if known else "",
            "action": verb if acted else "none",
            "reason": self.decision.reason,
        }

    def _sentence(self) -> str:
        name = str(self.tags[0]) if self.tags else str(self.params["path"])
        reason = self.decision.reason
        if not self.decision.build:
            return f"{name}: nothing to build, {reason}"
        if self.dry_run:
            return f"{name}: to be built, {reason}"
        if not self.changed:
            return f"{name}: built ({reason}), and the same as before"
        return f"{name}: {'built and pushed' if self.params['push'] else 'built'}, {reason}"

    def _lock(self) -> dict[str, Any] | None:
        """The lock of what is under the tags; None where no place tells enough, as an Engine."""
        images = {}
        for (_kind, tag), found in self.after.items():
            if found and found.image:
                images[str(tag)] = found.image
        return dump(images) if images else None

    def _diff(self) -> dict[str, Any]:
        after = {_word(key): _shown(found) for key, found in self.after.items()}
        if self.dry_run and self.changed:
            made = {"fingerprint": self.inputs.fingerprint.digest}
            after = {_word(key): dict(made) for key in self.before}
        before = {_word(key): _shown(found) for key, found in self.before.items()}
        return {"before": before, "after": after}


def is_moved(before: Found, after: Found) -> bool:
    """Whether a tag names other content afterwards, platform by platform."""
    return any(_platforms(before[key]) != _platforms(after[key]) for key in before)


def _platforms(found: _built.Found | None) -> Mapping[str, str]:
    return found.platforms if found else {}


def _sizes(found: _built.Found | None) -> dict[str, dict[str, Any]]:
    platforms = sorted(_platforms(found).items())
    sizes = found.sizes if found else {}
    return {name: {"digest": one, "size": sizes.get(name, 0)} for name, one in platforms}


def _word(key: Key) -> str:
    return f"{key[1]} in the {key[0]}"


def _shown(found: _built.Found | None) -> dict[str, Any]:
    if found is None:
        return {}
    return {"fingerprint": of_labels(found.labels), **found.platforms}
