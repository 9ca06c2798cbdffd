# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role image_build on a real build host; molecule has a scenario with QEMU and all the way."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from building import BUILDER, CONTEXT, LAB, SHOP, Site
from fleetlib import inventory, operations
from rig import Json, Rig, Run

BUILD = "fleet.images.build"
NATIVE_NODES = ["engine28-classic", "engine28-containerd"]


@pytest.fixture(scope="module")
def site(rig: Rig) -> Iterator[Site]:
    site = Site(rig)
    try:
        site.write({"Dockerfile": f"FROM {LAB}/base:1\nCOPY app /app\n", "app": "one\n"})
        yield site
    finally:
        site.clean()


def play(site: Site, builds: list[Json], *flags: str, **more: Any) -> tuple[Run, list[Json]]:
    """A run of the playbook, and the rows of its report."""
    report = site.rig.work / f"builds-{len(list(site.rig.work.iterdir()))}.json"
    variables = {
        "fleet_builds": builds, "image_build_registry_validate_certs": False,
        "image_build_report_path": str(report), **more,
    }  # fmt: skip
    run = site.rig.play(BUILD, variables, flags=flags)
    return run, json.loads(report.read_text()) if report.exists() else []


def by_image(rows: list[Json]) -> Mapping[str, Json]:
    return {str(row.get("image", "")).rpartition("/")[2]: row for row in rows}


def test_the_order_is_found_and_check_mode_knows(site: Site, tmp_path: Path) -> None:
    base = {
        "path": CONTEXT,
        "dockerfile_inline": f"FROM {SHOP}/tool:1\n",
        "tags": [f"{LAB}/base:1"],
    }
    app = {"path": CONTEXT, "tags": [f"{LAB}/app:1"]}
    after = {
        "path": CONTEXT,
        "tags": [f"{LAB}/last:1"],
        "needs": [f"{LAB}/app:1"],
        "dockerfile_inline": "FROM scratch\nCOPY app /\n",
    }
    lock = tmp_path / "built.lock.json"
    builds = [after, app, base]
    for flags, changed in ((["--check"], "yes"), ([], "yes"), (["--check"], "no"), ([], "no")):
        run, _rows = play(site, builds, *flags, image_build_lock_path=str(lock))
        assert run.code == 0, run.output
        table = run.output.rpartition("image_build: what was built\n")[2]
        lines = [line.split() for line in table.splitlines()[1:4]]
        names = [line[1].rpartition("/")[2] for line in lines]
        assert names == ["base:1", "app:1", "last:1"], table
        # Bytes are known of what is there.
        known = changed == "no" or not flags
        assert all(bool({"B", "kB", "MB"} & set(line)) == known for line in lines), table
        assert all(changed in line for line in lines), table
    pinned = json.loads(lock.read_text())["images"]
    assert set(pinned) == {f"{LAB}/{name}:1" for name in ("base", "app", "last")}
    # The base moves: what is built upon it is foreseen to change, though the base is not there yet.
    base["labels"] = {"new": "yes"}
    for flags in (["--check"], []):
        run, _rows = play(site, builds, *flags, image_build_lock_path=str(lock))
        table = run.output.rpartition("image_build: what was built\n")[2]
        told = {line.split()[1].rpartition("/")[2]: line for line in table.splitlines()[1:4]}
        assert [" yes " in told[f"{name}:1"] for name in ("base", "app", "last")] == [
            True, True, False,
        ]  # fmt: skip
    assert json.loads(lock.read_text())["images"] != pinned


def test_one_that_fails_hides_no_other(site: Site) -> None:
    builds = [
        {"path": CONTEXT, "dockerfile_inline": "FROM scratch\nFRUM x\n",
            "tags": [f"{LAB}/broken:1"]},
        {"path": CONTEXT, "dockerfile_inline": f"FROM {LAB}/broken:1\n", "tags": [f"{LAB}/upon:1"]},
        {"path": CONTEXT, "dockerfile_inline": "FROM scratch\nCOPY app /\n",
            "tags": [f"{LAB}/good:1"]},
    ]  # fmt: skip
    run, rows = play(site, builds)
    told = by_image(rows)
    assert run.code != 0 and len(rows) == 3
    assert "unknown instruction: FRUM" in told["broken:1"]["reason"]
    assert told["upon:1"]["reason"].startswith("it builds on what could not be built")
    assert told["good:1"]["done"] and told["good:1"]["changed"] == "yes"
    assert "unknown instruction: FRUM" in run.output.rpartition("TASK")[2]


def test_a_circle_is_told(site: Site) -> None:
    text = "FROM {}\n"
    builds = [
        {"path": CONTEXT, "dockerfile_inline": text.format("lab/b:1"), "tags": ["lab/a:1"]},
        {"path": CONTEXT, "dockerfile_inline": text.format("lab/a:1"), "tags": ["lab/b:1"]},
    ]
    run, _rows = play(site, builds)
    assert run.code != 0 and "lab/a:1, lab/b:1 need each other" in run.output


def test_a_group_is_the_nodes_of_a_builder(site: Site) -> None:
    """Over ssh from the build host to Engines of other hosts, each pinned to what it is."""
    key = "/var/tmp/build-key"
    site.keep(key, inventory.login_key(site.rig.fleet).read_text(), 0o600)
    site.shell(
        f"rm -rf ~/.ssh && mkdir -m 700 ~/.ssh && mv {key} ~/.ssh/id_ed25519 &&"
        " printf 'Host *\\n StrictHostKeyChecking no\\n' >~/.ssh/config"
    )
    variables = {
        "image_build_builder": {"name": "native", "state": "present"},
        "image_build_native_group": "native",
    }
    groups = site.rig.work / "native.json"
    hosts = {
        name: {"image_build_node_platforms": [platform]}
        for name, platform in zip(NATIVE_NODES, ("linux/amd64", "linux/arm64"))
    }
    groups.write_text(json.dumps({"native": {"hosts": hosts}}))
    try:
        run, _rows = play(site, [], "-i", str(groups), **variables)
        assert run.code == 0, run.output
        shown = site.run("docker", "buildx", "inspect", "native")
        for node, platform in zip(NATIVE_NODES, ("linux/amd64", "linux/arm64")):
            address = site.rig.fleet.address(operations.by_name(node))
            assert f"ssh://root@{address}" in shown and f"{platform}*" in shown
        again, _rows = play(site, [], "-i", str(groups), **variables)
        step = again.output.partition("Make or mend the builder] ")[2].partition("TASK [")[0]
        assert again.code == 0 and f"ok: [{BUILDER}]" in step, again.output
    finally:
        site.shell("docker buildx rm --force native; rm -rf ~/.ssh")
