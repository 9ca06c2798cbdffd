# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role preseed makes of a pull: from results as Ansible registers them."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.fleet.images.plugins.plugin_utils._preseed import outcome

PULL = {
    "changed": True,
    "images": [
        {"name": "docker.io/library/app:1", "action": "pulled"},
        {"name": "docker.io/library/web:1", "action": "none"},
    ],
    "bytes": 1234,
    "seconds": 2.5,
    "engine": {"version": "28.5.2", "store": "containerd"},
}
FAILED = {
    **PULL,
    "failed": True,
    "msg": "Task failed: Module failed: web:1: no",
    "images": [PULL["images"][0], {"name": "docker.io/library/web:1", "action": "failed"}],
}
LOCK = {"version": 1, "images": {"app:1": {}, "web:1": {}, "db:1": {}}}


def steps(pull: Any = None, **more: Any) -> dict[str, Any]:
    pull = PULL if pull is None else pull
    return {"images": ["app:1", "web:1"], "lock": {}, "left_alone": "", "pull": pull, **more}


def test_done() -> None:
    found = outcome("n1", steps())
    assert found["done"] and found["changed"]
    assert [found[key] for key in ("present", "pulled", "failed", "bytes")] == [1, 1, 0, 1234]
    assert (found["engine"], found["store"], found["seconds"]) == ("28.5.2", "containerd", 2.5)
    assert found["reason"] == ""


@pytest.mark.parametrize(
    ("given", "counts", "reason"),
    [
        (steps(FAILED), [0, 1, 1], "web:1: no"),
        (steps({"unreachable": True, "msg": "dead"}), [0, 0, 2], "the host is unreachable (dead)"),
        (steps({"skipped": True}), [0, 0, 2], "not all steps ran"),
        (steps({}), [0, 0, 2], "not all steps ran"),
        (steps({"skipped": True}, left_alone="left alone: 3"), [0, 0, 0], "left alone: 3"),
        (steps({"failed": True, "msg": "no lock"}, images=[], lock=LOCK), [0, 0, 3], "no lock"),
        (steps({"failed": True, "msg": "odd"}, images=["UP/x y", "b"]), [0, 0, 2], "odd"),
    ],
)
def test_not_done(given: dict[str, Any], counts: list[int], reason: str) -> None:
    found = outcome("n1", given)
    assert not found["done"]
    assert [found[key] for key in ("present", "pulled", "failed")] == counts
    assert found["reason"].startswith(reason)
    assert found["left_alone"] == bool(given["left_alone"])


def test_a_host_that_wants_nothing_is_done() -> None:
    found = outcome("n1", steps({"skipped": True}, images=[]))
    assert found["done"]
    assert not found["changed"]
