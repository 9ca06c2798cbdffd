# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bastions: several, unreachable ones, the controller itself; and lists that differ per host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import (
    AIRGAP,
    JUMP_HOST,
    NEW_NGINX,
    NEW_POSTGRES,
    NODES,
    OTHER_BASTION,
    REGISTRY,
    Rig,
    State,
)

FIRST, SECOND, THIRD, FOURTH, FIFTH = NODES
# As an address that nothing listens on: the whole fleet is cut off, at once and without a timeout.
CUT_OFF = {"ansible_port": 1}


@pytest.fixture
def clean(rig: Rig) -> Iterator[Rig]:
    rig.seed()
    yield rig


@pytest.fixture(scope="module")
def other_bastion_down(rig: Rig) -> Iterator[Rig]:
    rig.stop(OTHER_BASTION)
    yield rig
    rig.start(OTHER_BASTION)


def assert_gained(rig: Rig, before: dict[str, State], wanted: dict[str, set[str]]) -> None:
    """Every node has what it had before, these names besides, and nothing else."""
    after = rig.held_by_all(before)
    for node, state in before.items():
        assert set(state) <= set(after[node])
        new = {line.split()[0].partition("@")[0] for line in set(after[node]) - set(state)}
        assert new == wanted.get(node, set())


def assert_same(rig: Rig, before: dict[str, State]) -> None:
    assert rig.held_by_all(before) == before


def test_lists_and_bastions_differ_per_host(clean: Rig) -> None:
    wanted = {
        FIRST: [NEW_NGINX],
        SECOND: [NEW_POSTGRES],
        THIRD: [NEW_NGINX, NEW_POSTGRES],
        FOURTH: [],
        FIFTH: [NEW_NGINX],
    }
    hosts = {node: {"fleet_images": images} for node, images in wanted.items()}
    for node in (SECOND, FIFTH):
        hosts[node]["fleet_bastion"] = OTHER_BASTION  # type: ignore[assignment]
    before = clean.held_by_all()
    run = clean.play(AIRGAP, hosts=hosts)
    assert run.code == 0, run.output
    assert {node: run.rows[node]["loaded"] for node in NODES} == {
        node: len(images) for node, images in wanted.items()
    }
    assert_gained(clean, before, {node: set(images) for node, images in wanted.items()})


def test_nodes_of_a_bastion_that_is_down_fail_and_no_others(
    clean: Rig, other_bastion_down: Rig
) -> None:
    # The first node of all, since Ansible lets it stand for the others where a step runs once.
    behind = {FIRST: {"fleet_bastion": OTHER_BASTION}, FOURTH: {"fleet_bastion": OTHER_BASTION}}
    before = clean.held_by_all()
    run = clean.play(AIRGAP, {"fleet_images": [NEW_NGINX]}, hosts=behind)
    for node in behind:
        reason = run.failed_with(node)
        assert reason.startswith(f"bastion {OTHER_BASTION} is unreachable (")
        assert reason.endswith("see that it is up, then run again")
    well = {node: {NEW_NGINX} for node in NODES if node not in behind}
    assert all(run.rows[node]["done"] for node in well)
    assert_gained(clean, before, well)


def test_only_bastion_is_down(clean: Rig, other_bastion_down: Rig) -> None:
    before = clean.held_by_all()
    wanted = {"fleet_images": [NEW_NGINX], "fleet_bastion": OTHER_BASTION}
    run = clean.play(AIRGAP, wanted, flags=["--limit", f"{THIRD},{FOURTH}"])
    assert set(run.rows) == {THIRD, FOURTH}
    for node in (THIRD, FOURTH):
        assert f"bastion {OTHER_BASTION} is unreachable" in run.failed_with(node)
    assert_same(clean, before)


def test_every_node_is_unreachable(clean: Rig) -> None:
    before = clean.held_by_all()
    run = clean.play(AIRGAP, {"fleet_images": [NEW_NGINX]}, hosts=dict.fromkeys(NODES, CUT_OFF))
    for node in NODES:
        assert run.failed_with(node).startswith("the host is unreachable (")
    assert_same(clean, before)


def test_bastion_that_all_nodes_are_behind_is_down(clean: Rig) -> None:
    before = clean.held_by_all()
    clean.stop(JUMP_HOST)
    try:
        run = clean.play(AIRGAP, {"fleet_images": [NEW_NGINX]}, flags=["--limit", FIRST])
    finally:
        clean.start(JUMP_HOST)
    assert list(run.rows) == [FIRST]
    assert "unreachable" in run.failed_with(FIRST)
    assert_same(clean, before)


def test_controller_is_the_bastion_and_one_node_the_limit(clean: Rig, tmp_path: Path) -> None:
    wanted = {
        "fleet_images": [NEW_NGINX],
        "fleet_bastion": "localhost",
        "airgap_store": str(tmp_path / "store"),
        "airgap_bundle_dir": str(tmp_path / "bundles"),
        "airgap_controller_dir": str(tmp_path / "copies"),
        "airgap_staging_dir": "/var/tmp/elsewhere/bundles",
        "airgap_registry_mirrors": {REGISTRY: [f"http://{clean.registry_address}"]},
    }
    before = clean.held_by_all()
    run = clean.play(AIRGAP, wanted, flags=["--limit", FIFTH])
    assert run.code == 0, run.output
    assert list(run.rows) == [FIFTH]
    assert_gained(clean, before, {FIFTH: {NEW_NGINX}})
    assert list((tmp_path / "bundles").iterdir()) == []
    assert not (tmp_path / "copies").exists()
    # The directory above the parts' own is not the role's to remove; it is empty, or this fails.
    clean.inside(FIFTH, "sh", "-c", "[ ! -e /var/tmp/elsewhere ] || rmdir /var/tmp/elsewhere")


def test_strategy_free_is_refused(rig: Rig) -> None:
    before = rig.held_by_all()
    play = {
        "hosts": "nodes",
        "gather_facts": False,
        "strategy": "free",
        "roles": ["fleet.images.airgap"],
    }
    run = rig.play([play], {"fleet_images": [NEW_NGINX]})
    assert run.code != 0
    assert "the play's strategy: linear is wanted, free is set; remove that line" in run.output
    assert_same(rig, before)


@pytest.mark.parametrize("node", NODES)
def test_nodes_have_no_way_to_the_registry(rig: Rig, node: str) -> None:
    host, port = rig.registry_address.split(":")
    connect = f"import socket; socket.create_connection(('{host}', {port}), 3)"
    told = rig.inside(
        node, "python3", "-c", f"try:\n {connect}\nexcept OSError as e: print(repr(e))"
    )
    assert "unreachable" in told or "timed out" in told
    bastion = rig.inside(JUMP_HOST, "python3", "-c", f"{connect}; print('connected')")
    assert bastion.strip() == "connected"
