# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ledger: when a container of this host last used each image, and since when it is known.

An Engine notes neither. A container's own times witness it as long as the container is there; what
was seen once is kept here, so that it outlives the container. A ledger that cannot be read knows
nothing, and what is not known keeps an image.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._layout import write_atomically

VERSION = 1


@dataclass(frozen=True)
class Seen:
    """What is known of one image, in seconds since 1970; `used` is None where no use was seen."""

    since: int
    used: int | None = None


@dataclass
class Ledger:
    """Image ID -> what was seen. `trouble`: why an older ledger does not count, '' if it does."""

    images: dict[str, Seen] = field(default_factory=dict)
    trouble: str = ""

    def note(self, ids: Iterable[str], used: Mapping[str, int], now: int) -> None:
        """Notes what an Engine has at `now`, and when containers used it; forgets what is gone."""
        noted = {}
        for id_ in ids:
            before = self.images.get(id_, Seen(now))
            times = [time for time in (before.used, used.get(id_)) if time is not None]
            noted[id_] = Seen(before.since, max(times, default=None))
        self.images = noted

    def dumps(self) -> bytes:
        """The content of its file."""
        images = {
            id_: {"since": seen.since, **({} if seen.used is None else {"used": seen.used})}
            for id_, seen in sorted(self.images.items())
        }
        return json.dumps({"version": VERSION, "images": images}, indent=1).encode() + b"\n"


def read(path: Path) -> Ledger:
    """The ledger in a file, an empty one where there is none or it is damaged; raises nothing."""
    try:
        return Ledger(_images(json.loads(path.read_bytes())))
    except FileNotFoundError:
        return Ledger()
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return Ledger(
            trouble=f"{path}: a ledger of last uses was wanted, it cannot be read"
            f" ({type(error).__name__}: {error}); a new one begins now, and until it is old enough"
            " images stay"
        )


def write(path: Path, ledger: Ledger) -> None:
    """Puts it into its file, whole or not at all; raises OSError."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_atomically(path, ledger.dumps(), 0o644)


def _images(content: Any) -> dict[str, Seen]:
    if content["version"] != VERSION:
        raise ValueError(f"version {content['version']!r}")
    return {str(id_): _seen(one) for id_, one in content["images"].items()}


def _seen(entry: Mapping[str, Any]) -> Seen:
    used = entry.get("used")
    times = [entry["since"], *([] if used is None else [used])]
    if not all(isinstance(time, int) and time >= 0 for time in times):
        raise ValueError(f"no times: {entry}")
    return Seen(entry["since"], used)
