# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The other ways from the bastion to a node: a relay, over the network or an SSH tunnel."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from fleetlib.hosts import BASTIONS
from rig import AIRGAP, JUMP_HOST, NEW_NGINX, NODES, REGISTRY, SEED, Json, Rig, Run, wait_for

TOOL = f"{REGISTRY}/shop/tool:1"
CLOSED, OPEN = "engine26-containerd", "engine28-classic"
PROGRAM = "/usr/bin/docker-registry"


def wanted(rig: Rig, way: str, *images: str) -> Json:
    """The role's variables; the bastion has another address on the nodes' network."""
    bastion = next(host for host in BASTIONS if host.name == JUMP_HOST)
    address = rig.fleet.address(bastion, "nodes")
    return {
        "fleet_images": list(images),
        "airgap_transport": way,
        "airgap_relay_address": address,
    }


def told_without_seconds(run: Run) -> list[list[str]]:
    """The table's rows of nodes, but for their last column."""
    return [line.split()[:-1] for line in run.table().splitlines() if line.startswith("engine")]


def nothing_is_left(rig: Rig) -> None:
    """No relay, no tunnel, no authority that an Engine trusts, no name but those asked for."""
    assert rig.inside(JUMP_HOST, "pgrep", "-f", "docker-registry", check=False) == ""
    assert (
        rig.inside(
            JUMP_HOST, "sh", "-c", "ls -A /var/lib/fleet-images/store/.relay 2>/dev/null || :"
        )
        == ""
    )
    for node in NODES:
        assert rig.inside(node, "sh", "-c", "ls /etc/docker/certs.d 2>/dev/null || :") == ""
        assert "127.0.0.1" not in " ".join(rig.held(node))


def test_every_kind_of_engine_pulls_what_it_lacks(seeded: Rig, way: str) -> None:
    """A top layer and an image of an index cut to one platform; the second run does nothing."""
    variables = wanted(seeded, way, NEW_NGINX, TOOL)
    foreseen = seeded.play(AIRGAP, variables, flags=["--check"])
    run = seeded.play(AIRGAP, variables)
    assert (foreseen.code, run.code) == (0, 0), run.output
    assert told_without_seconds(foreseen) == told_without_seconds(run)
    assert len(told_without_seconds(run)) == len(NODES)
    for node in NODES:
        row = run.rows[node]
        assert (row["done"], row["transport"], row["bundle"]) == (True, way, "")
        assert (row["loaded"], 0 < row["bytes_sent"] < 3_000_000) == (2, True)
        assert {*SEED, NEW_NGINX, TOOL} == seeded.names(node)
        told = seeded.inside(node, "docker", "run", "--rm", "--network", "none", TOOL)
        assert "shop tool version 1" in told
    nothing_is_left(seeded)
    held = seeded.held_by_all()
    again = seeded.play(AIRGAP, variables)
    assert again.code == 0
    assert {(row["transport"], row["changed"]) for row in again.rows.values()} == {("", False)}
    assert "Open relays" not in again.output
    assert seeded.held_by_all() == held
    seeded.seed()


@pytest.fixture(params=["network", "tunnel"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def forwarding_forbidden(seeded: Rig) -> Iterator[None]:
    """The sshd of one node forwards no ports."""
    config = "/etc/fleet/sshd_config"
    forbid = f"sed -i '1i AllowTcpForwarding no' {config} && pkill -HUP -o -x sshd"
    allow = f"sed -i 1d {config} && pkill -HUP -o -x sshd"
    seeded.inside(CLOSED, "sh", "-c", forbid)
    yield
    seeded.inside(CLOSED, "sh", "-c", allow)


@pytest.mark.usefixtures("forwarding_forbidden")
def test_auto_falls_back_where_forwarding_is_forbidden(seeded: Rig) -> None:
    """The other node goes by the tunnel; without `auto` the refusal is an error that says so."""
    limit = ["--limit", f"{CLOSED},{OPEN}"]
    refused = seeded.play(AIRGAP, wanted(seeded, "tunnel", TOOL), flags=["--limit", CLOSED])
    reason = refused.failed_with(CLOSED)
    assert "forwarding failed" in reason
    assert "airgap_transport" in reason
    assert TOOL not in seeded.names(CLOSED)
    run = seeded.play(AIRGAP, wanted(seeded, "auto", TOOL), flags=limit)
    assert run.code == 0, run.output
    ways = {node: (run.rows[node]["transport"], run.rows[node]["bundle"]) for node in run.rows}
    assert ways == {CLOSED: ("bundle", "full"), OPEN: ("tunnel", "")}
    assert "forwarding failed" in run.rows[CLOSED]["fallback"]
    assert all(TOOL in seeded.names(node) for node in (CLOSED, OPEN))
    nothing_is_left(seeded)
    seeded.seed()


@pytest.fixture
def no_registry_program(seeded: Rig) -> Iterator[None]:
    """The bastion has no registry installed."""
    seeded.inside(JUMP_HOST, "mv", PROGRAM, f"{PROGRAM}.away")
    yield
    seeded.inside(JUMP_HOST, "mv", f"{PROGRAM}.away", PROGRAM)


@pytest.mark.usefixtures("no_registry_program")
def test_a_bastion_without_a_registry(seeded: Rig) -> None:
    limit = ["--limit", OPEN]
    refused = seeded.play(AIRGAP, wanted(seeded, "network", TOOL), flags=limit)
    assert "docker-registry" in refused.failed_with(OPEN)
    run: Run = seeded.play(AIRGAP, wanted(seeded, "auto", TOOL), flags=limit)
    assert run.code == 0, run.output
    assert run.rows[OPEN]["transport"] == "bundle"
    assert "docker-registry" in run.rows[OPEN]["fallback"]
    seeded.seed()


def kill_once_a_relay_is_open(rig: Rig, variables: Json) -> None:
    """Starts a run, and kills all its processes here as soon as the bastion has its relay."""
    place = str(rig.work / f"run-{rig._runs + 1}")
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(rig.play, AIRGAP, variables, flags=["--limit", OPEN])
        wait_for("a relay", lambda: run.done() or relays(rig) != "", 120)
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if place in path.read_text():
                    os.kill(int(path.parent.name), signal.SIGKILL)
        assert run.result().code == -signal.SIGKILL


def relays(rig: Rig) -> str:
    """The processes of relays on the bastion."""
    return rig.inside(JUMP_HOST, "pgrep", "-f", "docker-registry serve", check=False)


def test_what_a_killed_run_left_goes_and_what_the_user_trusts_stays(seeded: Rig) -> None:
    """The relay of a run whose lease is over, and the place of a node's authorities."""
    kill_once_a_relay_is_open(seeded, wanted(seeded, "tunnel", TOOL, NEW_NGINX))
    # Nobody closed it, and its lease counts for a day.
    assert relays(seeded) != ""
    leases = "/var/lib/fleet-images/store/.leases"
    seeded.inside(JUMP_HOST, "sh", "-c", f"touch -d '25 hours ago' {leases}/*")
    # What was under way on the node when the run was killed may have come to its end.
    images = (TOOL, f"{REGISTRY}/shop/tool:2")
    variables = {**wanted(seeded, "network", *images), "airgap_relay_port": 5099}
    place = f"/etc/docker/certs.d/{variables['airgap_relay_address']}:5099"
    seeded.inside(OPEN, "sh", "-c", f"mkdir -p {place} && echo kept > {place}/note")
    run = seeded.play(AIRGAP, variables, flags=["--limit", OPEN])
    assert run.code == 0, run.output
    assert seeded.inside(OPEN, "ls", place) == "note\n"
    seeded.inside(OPEN, "rm", "-r", "/etc/docker/certs.d")
    nothing_is_left(seeded)
    seeded.inside(JUMP_HOST, "sh", "-c", f"rm -f {leases}/*")
    seeded.seed()
