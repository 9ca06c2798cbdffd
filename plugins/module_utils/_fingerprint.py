# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One digest of everything that goes into a build, so that an unchanged one is known. Pure: no I/O.

The digest stands as a label on the image, and beside it shorter ones of its parts, which tell what
changed. Secrets are no part of it: only their names are, as BuildKit has it for its cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LABEL = "fleet.images.fingerprint"
"""The label of the whole fingerprint."""
PARTS = "fleet.images.inputs"
"""The label of its parts: `context=1f00…,dockerfile=…`."""
_VERSION = 1
_SHORT = 12


@dataclass(frozen=True)
class Fingerprint:
    """What goes into a build, by the part of it: each value is JSON.

    `unseen`: what goes in as well but cannot be seen without building, as a URL's content.
    """

    parts: Mapping[str, Any]
    unseen: tuple[str, ...] = ()
    digests: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.digests.update((name, _digest(value)) for name, value in self.parts.items())

    @property
    def digest(self) -> str:
        """`sha256:<64 hex>` of all parts."""
        return f"sha256:{_digest([_VERSION, self.digests])}"

    def labels(self) -> dict[str, str]:
        """The labels that keep it on the image."""
        parts = ",".join(f"{name}={one[:_SHORT]}" for name, one in sorted(self.digests.items()))
        return {LABEL: self.digest, PARTS: parts}

    def changes(self, labels: Mapping[str, str]) -> list[str]:
        """The parts that differ from those of an image with these labels; none without labels."""
        there = dict(part.partition("=")[::2] for part in labels.get(PARTS, "").split(",") if part)
        now = {name: one[:_SHORT] for name, one in self.digests.items()}
        names = sorted({*there, *now}) if there else []
        return [name for name in names if there.get(name) != now.get(name)]


def of_labels(labels: Mapping[str, str] | None) -> str:
    """The fingerprint that an image has; '' where it has none."""
    return str((labels or {}).get(LABEL) or "")


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
