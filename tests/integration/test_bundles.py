# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles that do not fit any more, and bundles that serve several plans."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from rig import AIRGAP, JUMP_HOST, NEW_NGINX, NODES, SEED, STORES, Rig

GONE, UNITED, OTHER = "engine20-classic", "engine26-classic", "engine28-containerd"


def empty(rig: Rig, *hosts: str) -> None:
    """Takes every image of these hosts away."""
    for host in hosts:
        rig.inside(host, "sh", "-c", "docker images -aq | sort -u | xargs -r docker rmi --force")


def runs(rig: Rig, host: str, image: str) -> None:
    """The image is whole: its content can be read, and saved again with all its layers."""
    layers = rig.inside(host, "docker", "inspect", "--format", "{{len .RootFS.Layers}}", image)
    assert rig.inside(host, "docker", "run", "--rm", "--network", "none", image, "true") == ""
    names = "import json, sys, tarfile; tar = tarfile.open(fileobj=sys.stdin.buffer, mode='r|*');"
    names += "print(sum(m.size > 4096 and not m.name.endswith('.json') for m in tar))"
    line = f"docker save {shlex.quote(image)} | python3 -c {shlex.quote(names)}"
    assert int(rig.inside(host, "sh", "-c", line)) >= int(layers) - 1


@pytest.mark.parametrize("nodes", [("engine20-classic", "engine28-containerd")])
def test_base_that_goes_during_the_run(seeded: Rig, tmp_path: Path, nodes: tuple[str, ...]) -> None:
    """Something removes the base after the plan was made: the same run brings a full bundle.

    The variable is templated right before the load, which is the moment that matters, and when the
    role's arguments are checked, where there is no bundle yet.
    """
    remove, copies = tmp_path / "remove", tmp_path / "copies"
    lines = [
        f"docker -H {seeded.engine.address} exec {seeded.container(node)}"
        f" docker rmi --force {' '.join(SEED)} >/dev/null 2>&1"
        for node in nodes
    ]
    made = f"if ls {copies}/*/*.tar* >/dev/null 2>&1; then"
    remove.write_text("\n".join(["#!/bin/sh", made, *lines, "fi", "echo 600", ""]))
    remove.chmod(0o700)
    wanted = {
        "fleet_images": [NEW_NGINX],
        "airgap_controller_dir": str(copies),
        "airgap_stall_timeout": f"{{{{ lookup('ansible.builtin.pipe', '{remove}') | int }}}}",
    }
    run = seeded.play(AIRGAP, wanted, flags=["--limit", ",".join(nodes)])
    assert run.code == 0, run.output
    for node in nodes:
        row = run.rows[node]
        assert (row["done"], row["bundle"], row["loaded"]) == (True, "thin, full", 1)
        assert row["bytes_sent"] > 10_000_000
        runs(seeded, node, NEW_NGINX)
    assert seeded.inside(JUMP_HOST, "sh", "-c", "ls /var/lib/fleet-images/bundles") == ""


def test_few_bundles_for_many_plans(seeded: Rig) -> None:
    """One node that has nothing and others that have the base get the same bundle."""
    seeded.seed()
    empty(seeded, UNITED)
    wanted = {"fleet_images": [NEW_NGINX], "airgap_max_bundles": 1}
    run = seeded.play(AIRGAP, wanted, flags=["--limit", ",".join((UNITED, GONE, OTHER))])
    assert run.code == 0, run.output
    rows = [run.rows[node] for node in (UNITED, GONE, OTHER)]
    assert {row["bundle"] for row in rows} == {"full"}
    assert len({row["bytes_sent"] for row in rows}) == 1
    assert all(row["loaded"] == 1 for row in rows)


def test_layers_under_another_compression_are_not_there(seeded: Rig) -> None:
    """What a classic Engine saved has other blobs than the registry: a thin bundle would break."""
    seeded.seed()
    containerd = [node for node in NODES if STORES[node] == "containerd"]
    empty(seeded, *containerd)
    for node in containerd:
        seeded.pipe("engine28-classic", f"docker save {SEED[0]}", node, "docker load")
        assert seeded.names(node) == {SEED[0]}
    run = seeded.play(AIRGAP, {"fleet_images": [SEED[0]]}, flags=["--limit", ",".join(containerd)])
    assert run.code == 0, run.output
    for node in containerd:
        assert (run.rows[node]["bundle"], run.rows[node]["loaded"]) == ("full", 1)
        runs(seeded, node, SEED[0])
