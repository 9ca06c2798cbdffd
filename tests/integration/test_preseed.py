# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role preseed on real Engines: create, repeat, foresee; what fails stays where it failed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fleetlib.hosts import REGISTRY_CA
from pulling import LOGIN, NGINX, PASSWORD, TOOL, USER, connected, empty, is_classic
from rig import JUMP_HOST, NODES, Json, Rig, Run

PRESEED = "fleet.images.preseed"
IMAGES = [f"{TOOL}:1", f"{NGINX}:1"]


@pytest.fixture(scope="module")
def open_rig(rig: Rig) -> Iterator[Rig]:
    with connected(rig):
        yield rig


@pytest.fixture
def clean(open_rig: Rig) -> Rig:
    empty(open_rig)
    return open_rig


def preseed(
    rig: Rig, images: Any = tuple(IMAGES), flags: Sequence[str] = (), **options: Any
) -> tuple[Run, list[list[str]]]:
    """A run, and the lines of its table, by columns."""
    hosts: dict[str, Json] = options.pop("hosts", {})
    place = rig.work / f"run-{rig._runs + 1}"
    variables = {
        **({} if images is None else {"fleet_images": list(images)}),
        "preseed_registry_username": USER,
        "preseed_registry_password": PASSWORD,
        "preseed_report_path": str(place / "report.json"),
        **options,
    }
    run = rig.play(PRESEED, variables, hosts=hosts, flags=flags)
    assert PASSWORD not in run.output
    table = run.output.rpartition("preseed: images on every node\n")[2].partition("\nTASK [")[0]
    return run, [re.split(r" {2,}", line) for line in table.splitlines()]


def rows(table: list[list[str]]) -> dict[str, list[str]]:
    """Host -> present, pulled, failed."""
    return {line[0]: line[3:6] for line in table if line[0] in NODES}


def test_create_and_repeat(clean: Rig) -> None:
    before = clean.held_by_all()
    foreseen, table = preseed(clean, flags=["--check"])
    assert foreseen.code == 0, foreseen.output
    assert clean.held_by_all() == before
    run, done = preseed(clean)
    assert run.code == 0, run.output
    columns = ["node", "engine", "store", "present", "pulled", "failed", "bytes", "seconds"]
    assert done[0] == columns
    assert rows(table) == rows(done) == {node: ["0", "2", "0"] for node in NODES}
    for node in NODES:
        row = run.rows[node]
        assert row["done"]
        assert row["changed"]
        assert [one["name"] for one in row["images"]] == IMAGES
        # The containerd store may still have the layers of images that were removed a moment ago.
        assert row["bytes"] > 40_000_000 or not is_classic(node)
        assert clean.names(node) == set(IMAGES)
    after = clean.held_by_all()
    again, table = preseed(clean)
    assert again.code == 0, again.output
    assert rows(table) == {node: ["2", "0", "0"] for node in NODES}
    assert not any(row["changed"] for row in again.rows.values())
    assert re.search(r"changed=0 .*\n", again.output)
    assert clean.held_by_all() == after


def test_a_dead_host_and_a_failing_image_hide_nothing(clean: Rig) -> None:
    dead, poor = NODES[0], NODES[1]
    clean.stop(dead)
    try:
        hosts = {node: {"fleet_images": IMAGES} for node in NODES}
        hosts[poor] = {"fleet_images": [f"{TOOL}:nope", IMAGES[1]]}
        run, table = preseed(clean, None, hosts=hosts)
        assert run.code != 0
    finally:
        clean.start(dead)
    assert "unreachable" in run.rows[dead]["reason"]
    assert rows(table)[dead] == ["0", "0", "2"]
    assert rows(table)[poor] == ["0", "1", "1"]
    assert f"{TOOL}:nope: wanted from" in run.rows[poor]["reason"]
    assert rows(table)[NODES[4]] == ["0", "2", "0"]
    assert clean.names(poor) == {IMAGES[1]}


def test_too_many_failures_leave_the_rest_alone(clean: Rig) -> None:
    bad = {node: {"preseed_images": [f"{TOOL}:nope"]} for node in NODES[:2]}
    options = {"fleet_serial": 1, "preseed_max_failures": 1}
    run, table = preseed(clean, hosts=bad, **options)
    assert run.code != 0
    assert rows(table) == {
        **{node: ["0", "0", "1"] for node in NODES[:2]},
        **{node: ["0", "0", "0"] for node in NODES[2:]},
    }
    for node in NODES[2:]:
        assert run.rows[node]["left_alone"] and not run.rows[node]["done"]
        assert "2 hosts of earlier batches are not done" in run.rows[node]["reason"]
        assert clean.names(node) == set()
    run, table = preseed(clean, hosts=bad, **{**options, "preseed_max_failures": 2})
    assert run.code != 0
    assert [run.rows[node]["done"] for node in NODES] == [False, False, True, True, True]


def test_a_lock_keeps_what_was_agreed(clean: Rig, tmp_path: Path) -> None:
    now = f"{TOOL}:now"
    first = clean.move_tag("shop/tool", "now", "1")
    lock = {
        "name": "lock",
        "fleet.images.image_fetch": {
            **LOGIN,
            "images": [now],
            "store": "/var/tmp/pull-store",
            "registry_ca_path": REGISTRY_CA,
        },
        "check_mode": True,
    }
    pins = clean.results(JUMP_HOST, [lock])["lock"][JUMP_HOST]["lock"]
    path = tmp_path / "images.lock.json"
    path.write_text(json.dumps(pins))
    second = clean.move_tag("shop/tool", "now", "2")
    # What one host has wrong in its list is told by that host, and leaves its other images alone.
    lacking, other, unclear = NODES[:3]
    hosts = {
        lacking: {"preseed_images": [f"{TOOL}:1", now]},
        other: {"preseed_images": [f"{now}@{second}"]},
        unclear: {"preseed_images": [now, "shop/UPPER:1"]},
    }
    run, table = preseed(clean, [now], hosts=hosts, fleet_lock=str(path))
    assert run.code != 0
    assert run.rows[lacking]["reason"].startswith(f"{TOOL}:1 is not in the lock")
    assert f"{now}: wanted {second}, the lock has {first}" in run.rows[other]["reason"]
    assert "no image reference" in run.rows[unclear]["reason"]
    assert rows(table) == {
        lacking: ["0", "1", "1"],
        other: ["0", "0", "1"],
        unclear: ["0", "0", "2"],
        **{node: ["0", "1", "0"] for node in NODES[3:]},
    }
    run, _table = preseed(clean, [], fleet_lock=str(path))
    assert run.code == 0, run.output
    assert {row["images"][0]["digest"] for row in run.rows.values()} == {first}
    assert [run.rows[node]["changed"] for node in NODES] == [False, True, True, False, False]
    run, _table = preseed(clean, [now], preseed_policy="always", preseed_jitter=1)
    assert run.code == 0, run.output
    assert {row["images"][0]["digest"] for row in run.rows.values()} == {second}


def test_what_does_not_fit_is_refused(clean: Rig, tmp_path: Path) -> None:
    """Nothing is pulled where a lock says that the disk is too small for it."""
    lock = {
        "name": "lock",
        "fleet.images.image_fetch": {
            **LOGIN,
            "images": IMAGES[:1],
            "store": "/var/tmp/pull-store",
            "registry_ca_path": REGISTRY_CA,
        },
        "check_mode": True,
    }
    pins = clean.results(JUMP_HOST, [lock])["lock"][JUMP_HOST]["lock"]
    for one in pins["images"].values():
        for platform in one["platforms"].values():
            platform["layers"][0]["size"] = 1 << 60
    path = tmp_path / "images.lock.json"
    path.write_text(json.dumps(pins))
    run, _table = preseed(clean, IMAGES[:1], fleet_lock=str(path))
    assert run.code != 0
    for node in NODES:
        assert "bytes are wanted free for the pull" in run.rows[node]["reason"]
        assert clean.names(node) == set()
