# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run over hosts of which one is off, one has no Engine and one wants what does not exist."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from rig import AIRGAP, NEW_NGINX, NODES, REGISTRY, Rig, Run, State

OFF, NO_ENGINE, WISHFUL, *WELL = NODES
NO_TAG, NO_REPOSITORY = f"{REGISTRY}/shop/nginx:99", f"{REGISTRY}/shop/nothing:1"


@dataclass(frozen=True)
class Day:
    """The run, and what every node held before and after it."""

    run: Run
    before: dict[str, State]
    after: dict[str, State]


@pytest.fixture(scope="module")
def day(seeded: Rig) -> Iterator[Day]:
    before = seeded.held_by_all()
    hosts = {node: {"fleet_images": [NEW_NGINX]} for node in NODES}
    hosts[WISHFUL] = {"fleet_images": [NO_TAG, NEW_NGINX, NO_REPOSITORY]}
    seeded.inside(NO_ENGINE, "engine-stop")
    seeded.stop(OFF)
    try:
        run = seeded.play(AIRGAP, hosts=hosts)
    finally:
        seeded.start(OFF)
        seeded.inside(NO_ENGINE, "engine-start")
    yield Day(run, before, seeded.held_by_all())
    seeded.seed()


def test_node_that_is_off(day: Day) -> None:
    reason = day.run.failed_with(OFF)
    assert reason.startswith("the host is unreachable (")
    assert reason.endswith("see that it is up, then run again")
    assert day.after[OFF] == day.before[OFF]


def test_engine_that_is_down(day: Day) -> None:
    reason = day.run.failed_with(NO_ENGINE)
    assert reason.startswith("the Engine at unix:///var/run/docker.sock: wanted an answer, found ")
    assert reason.endswith("start it (systemctl start docker), or set docker_host")
    assert day.after[NO_ENGINE] == day.before[NO_ENGINE]


def test_unknown_images(day: Day) -> None:
    reason = day.run.failed_with(WISHFUL)
    assert NO_TAG in reason
    assert NO_REPOSITORY in reason
    assert NEW_NGINX not in reason
    assert "not found" in reason or "unknown" in reason


def test_unknown_images_hold_back_no_other_image(day: Day) -> None:
    gained = set(day.after[WISHFUL]) - set(day.before[WISHFUL])
    assert {line.split()[0] for line in gained} >= {NEW_NGINX}
    assert all(NEW_NGINX in line for line in gained)
    assert set(day.before[WISHFUL]) <= set(day.after[WISHFUL])
    assert day.run.rows[WISHFUL]["loaded"] == 1
    assert day.run.rows[WISHFUL]["failed"] == 2


@pytest.mark.parametrize("node", WELL)
def test_other_nodes_are_done_all_the_same(day: Day, node: str) -> None:
    assert day.run.rows[node]["done"]
    assert day.run.rows[node]["loaded"] == 1
    assert f"{node}:" not in day.run.table()
    assert any(line.startswith(f"{NEW_NGINX} ") for line in day.after[node])


def test_run_ends_with_an_error(day: Day) -> None:
    assert day.run.code != 0
    assert [host for host, row in day.run.rows.items() if not row["done"]] == [
        OFF,
        NO_ENGINE,
        WISHFUL,
    ]
