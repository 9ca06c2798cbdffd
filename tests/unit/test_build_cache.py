# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits of the build cache, and what goes for them at most."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("docker")

from ansible_collections.fleet.images.plugins.module_utils import _build_cache
from ansible_collections.fleet.images.plugins.module_utils._amounts import PolicyError
from ansible_collections.fleet.images.plugins.module_utils._build_cache import Limits, foreseen

NOW = 1_800_000_000
DAY = 86400


def record(size: int, days: int = 0, **more: Any) -> dict[str, Any]:
    from datetime import datetime, timezone

    when = datetime.fromtimestamp(NOW - days * DAY, timezone.utc)
    return {"Size": size, "LastUsedAt": when.strftime("%Y-%m-%dT%H:%M:%S.123456789Z"), **more}


TOLD = [
    record(100),
    record(200, 10),
    record(400, 20),
    record(800, 30, InUse=True),
    record(1600, 30, Shared=True),
]


@pytest.mark.parametrize(
    "limits, free, bytes_",
    [
        (Limits(), None, 700),
        (Limits(older_than=5 * DAY), None, 600),
        (Limits(older_than=40 * DAY), None, 0),
        (Limits(reserved=1000), None, 500),
        (Limits(reserved=1500), None, 0),
        (Limits(reserved=1400, older_than=5 * DAY), None, 100),
        (Limits(max_used=1200), None, 300),
        (Limits(max_used=1200, reserved=1300), None, 200),
        (Limits(min_free=5000), 5000, 0),
        (Limits(min_free=5000), 4900, 100),
        (Limits(min_free=5000), 0, 700),
        (Limits(min_free=5000, max_used=1300), 4950, 200),
        (Limits(min_free=5000, max_used=1490), 4900, 100),
        (Limits(min_free=5000), None, 700),
    ],
)
def test_what_goes_at_most(limits: Limits, free: int | None, bytes_: int) -> None:
    assert foreseen(TOLD, limits, free, NOW) == bytes_


def test_nothing_there() -> None:
    assert foreseen([], Limits(), None, NOW) == 0


def test_one_never_used_is_as_old_as_it_is() -> None:
    young = {"Size": 5, "LastUsedAt": None, "CreatedAt": record(5, 1)["LastUsedAt"]}
    assert foreseen([young], Limits(older_than=2 * DAY), None, NOW) == 0
    assert foreseen([young], Limits(older_than=DAY), None, NOW) == 5


def test_options() -> None:
    assert _build_cache.limits(None) is None
    none = dict.fromkeys(("reserved", "max_used", "min_free", "older_than"))
    assert _build_cache.limits(none) == Limits()
    some = {**none, "reserved": "5GB", "older_than": "7d"}
    assert _build_cache.limits(some) == Limits(reserved=5 * 10**9, older_than=7 * DAY)
    with pytest.raises(PolicyError, match="unknown unit"):
        _build_cache.limits({**none, "max_used": "5 gallons"})
