# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An Engine's build cache: what it weighs, and its pruning down to limits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import _inventory
from ansible_collections.fleet.images.plugins.module_utils._amounts import (
    PolicyError,
    amount,
    duration,
)
from ansible_collections.fleet.images.plugins.module_utils._engine import Engine

Json = Mapping[str, Any]

# From this API on, the cache has limits of its own kinds; before, what is reserved
# (https://docs.docker.com/reference/api/engine/version-history/).
LIMITS_API = (1, 48)
_TYPES_API = (1, 42)


@dataclass(frozen=True)
class Limits:
    """Limits in bytes, and an age in seconds; None where there is none."""

    reserved: int | None = None
    max_used: int | None = None
    min_free: int | None = None
    older_than: int | None = None


def limits(option: Mapping[str, Any] | None) -> Limits | None:
    """The limits that a module's option names, None without it; raises PolicyError."""
    if option is None:
        return None
    sizes = {name: option.get(name) for name in ("reserved", "max_used", "min_free")}
    older = option.get("older_than")
    return Limits(
        older_than=None if older is None else duration(older),
        **{name: None if text is None else amount(text) for name, text in sizes.items()},
    )


def records(engine: Engine) -> list[Json]:
    """What the cache holds, a dict of the API for each record; raises EngineError."""
    usage = _usage(engine)
    return list(usage.get("BuildCache") or usage.get("Items") or ())


def there(engine: Engine) -> bool:
    """Whether the Engine has build cache; raises EngineError."""
    usage = _usage(engine)
    return any(usage.get(key) for key in ("BuildCache", "Items", "TotalCount", "TotalSize"))


def _usage(engine: Engine) -> Json:
    only = {"type": "build-cache"} if engine.speaks(_TYPES_API) else {}
    usage: Json = engine.get("/system/df", **only)
    # From API 1.52 on it stands elsewhere (api/types/system/disk_usage.go of moby).
    newer: Json = usage.get("BuildCacheUsage") or usage.get("BuildCacheDiskUsage") or usage
    return newer


def foreseen(told: Sequence[Json], wanted: Limits, free: int | None, now: int) -> int:
    """Bytes that go at most. `free`: bytes free on the disk, None where that is not known.

    As BuildKit counts (cache/manager.go of moby/buildkit): down to `max_used`, or as far as
    `min_free` wants it, never below `reserved`. Records in use stay.
    """
    unused = [one for one in told if not (one.get("InUse") or one.get("Shared"))]
    old = [one for one in unused if now - _last_used(one) >= (wanted.older_than or 0)]
    used = sum(int(one.get("Size") or 0) for one in told if not one.get("Shared"))
    keep = wanted.max_used or 0
    if wanted.min_free is not None and free is not None:
        excess = wanted.min_free - free
        if excess <= 0 and wanted.max_used is None:
            return 0
        if excess > 0:
            keep = min(keep or used, max(0, used - excess))
    keep = max(keep, wanted.reserved or 0)
    return max(0, min(sum(int(one.get("Size") or 0) for one in old), used - keep))


def _last_used(record: Json) -> int:
    text = _inventory.moment(record.get("LastUsedAt")) or _inventory.moment(record.get("CreatedAt"))
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()) if text else 0


def check(engine: Engine, wanted: Limits) -> None:
    """Raises PolicyError for limits that this Engine does not know."""
    newer = [name for name in ("max_used", "min_free") if getattr(wanted, name) is not None]
    if newer and not engine.speaks(LIMITS_API):
        raise PolicyError(
            f"build_cache: {' and '.join(newer)} wanted, API {engine.facts.api_version} of this"
            " Engine knows reserved and older_than only (1.48 and newer know the others); give"
            " these"
        )


def prune(engine: Engine, wanted: Limits) -> int:
    """Prunes it, and returns the bytes that the Engine says it released; raises EngineError."""
    new = engine.speaks(LIMITS_API)
    sizes = {
        "reserved-space" if new else "keep-storage": wanted.reserved,
        "max-used-space": wanted.max_used,
        "min-free-space": wanted.min_free,
    }
    params: dict[str, Any] = {name: size for name, size in sizes.items() if size is not None}
    if wanted.older_than:
        params["filters"] = json.dumps({"until": {f"{wanted.older_than}s": True}})
    answer = engine.post("/build/prune", all=1, **params) or {}
    return int(answer.get("SpaceReclaimed") or 0)
