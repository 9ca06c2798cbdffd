# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_prune and the role image_cleanup on Engines of every kind: just the right images go."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from rig import NODES, STORES, Json, Rig, on_each
from yard import KEPT, TEAM, UNUSED, clear, fill, names_of, starts

HOSTS = ",".join(NODES)
CLEANUP = "fleet.images.cleanup"
ROUNDS = ("foreseen", "done", "again")
ALWAYS = {"protect": ["*/shop/*"]}
ON_THE_CONTROLLER = {
    "Note which host is to keep the last copy of what",
    "Say what is going to happen, and refuse the strategy free",
    "Note whether too many have failed, and whether last copies are known",
    "Note what came of it",
    "Print what every node got",
    "Fail the nodes that are not done",
}


@pytest.fixture(scope="module")
def yard(seeded: Rig) -> Iterator[Rig]:
    """The fleet, from which the images of these tests go in the end."""
    try:
        yield seeded
    finally:
        clear(seeded)


@pytest.fixture
def full(yard: Rig) -> Rig:
    """All of the images, whatever the test before has removed."""
    fill(yard)
    return yard


def task(name: str, check: bool = False, **options: Any) -> Json:
    return {
        "name": name,
        "fleet.images.image_prune": {**ALWAYS, **options},
        "check_mode": check,
        "diff": True,
    }


def prune(rig: Rig, **options: Any) -> dict[str, Json]:
    """Node -> what was done, which is what was foreseen; nothing is left to do after it."""
    tasks = [task(name, name == "foreseen", **options) for name in ROUNDS]
    found = rig.results(HOSTS, tasks)
    for node in NODES:
        foreseen, done, again = (found[name][node] for name in ROUNDS)
        assert "failed" not in done or not done["failed"], done["msg"]
        for key in ("plan", "kept", "images", "bytes", "diff", "changed"):
            assert foreseen[key] == done[key], (node, key)
        assert again["plan"] == [] and not again["changed"], (node, again["msg"])
    return dict(found["done"])


def goes(result: Json) -> set[str]:
    """The last parts of the names of what goes, '' for what has none."""
    return {one["name"].removeprefix(f"{TEAM}/") for one in result["plan"]}


def why(result: Json) -> dict[str, str]:
    """Why each image stays, by each of its names."""
    return {
        name.removeprefix(f"{TEAM}/"): one["reason"]
        for one in result["kept"]
        for name in one["references"]
    }


def nameless(result: Json) -> int:
    return sum(not one["references"] for one in result["plan"])


def test_dangling(full: Rig) -> None:
    before = {node: names_of(full, node) for node in NODES}
    for node, result in prune(full).items():
        assert nameless(result) == len(result["plan"]) == 2, (node, result["plan"])
        assert result["left"]["before"] - result["left"]["after"] == 2
        assert names_of(full, node) == {one for one in before[node] if "<none>" not in one}
        assert result["reclaimed"]["reported"] >= 300_000
        starts(full, node)


def test_unused(full: Rig) -> None:
    """Everything that no container uses goes; what containers use stays with all its names."""
    for node, result in prune(full, scope="unused").items():
        assert goes(result) >= UNUSED, node
        left = names_of(full, node)
        # A classic store keeps what images that stay were built upon, and says so.
        stays = KEPT | ({"base:1"} if STORES[node] == "classic" else set())
        assert {one.removeprefix(f"{TEAM}/") for one in left if one.startswith(TEAM)} == stays, node
        assert result["bytes"] > 2_000_000
        reasons = why(result)
        assert reasons["run:1"].startswith("used by the container running (running)")
        assert "stopped (not running" in reasons["stop:1"]
        starts(full, node)


def test_policy(full: Rig) -> None:
    """Names, labels, a query, a compose file and the newest versions keep images."""
    for node in NODES:
        text = "services:\n  a:\n    image: prune.example/team/composed:${TAG}\n"
        full.inside(node, "sh", "-c", f"mkdir -p /srv/app; printf '{text}' >/srv/app/compose.yml")
    options = {
        "scope": "unused",
        "repositories": ["prune.example/*"],
        "keep_last": 2,
        "protect": ["*/shop/*", "prune.example/team/foreign"],
        "protect_labels": ["keep"],
        "protect_query": "[?contains(name, 'asked')]",
        "compose_files": ["/srv/*/compose.yml"],
    }
    for node, result in prune(full, **options).items():
        assert goes(result) == {"app:1.0", "app:1.1"}, (node, result["plan"])
        reasons = why(result)
        assert "newest 2" in reasons["app:1.10"] and "newest 2" in reasons["app:1.2"]
        assert "label keep" in reasons["labelled:1"]
        assert "protect_query" in reasons["asked:1"]
        assert "/srv/app/compose.yml names it" in reasons["composed:7"]
        starts(full, node)


def test_ages(full: Rig) -> None:
    """What nobody knows the age of stays, and a build date of 1970 is none."""
    tasks = [
        task("built", True, scope="unused", built_before="1s"),
        task("young", True, scope="unused", built_before="2w"),
        task("tagged", True, scope="unused", tagged_before="1s"),
        task("first", scope="unused", unused_for="1h", ledger_path="/var/tmp/ledger.json"),
        task("unused", True, scope="unused", unused_for="1s", ledger_path="/var/tmp/ledger.json"),
    ]
    found = full.results(HOSTS, tasks)
    for node in NODES:
        assert "old:1970" not in goes(found["built"][node])
        assert "app:1.0" in goes(found["built"][node])
        assert goes(found["young"][node]) == set()
        if STORES[node] == "classic":
            assert "does not know" in why(found["tagged"][node])["old:1970"]
        assert "app:1.0" in goes(found["tagged"][node])  # docker tag made it
        assert goes(found["first"][node]) == set(), found["first"][node]["plan"]
        assert "app:1.0" in goes(found["unused"][node])
        full.inside(node, "rm", "/var/tmp/ledger.json")


def test_refused(full: Rig) -> None:
    """What is no policy, or is past its budget: nothing goes, and the plan is told."""
    before = {node: full.held(node) for node in NODES}
    all_ = {"scope": "unused", "protect": []}
    tasks = [
        task("unit", unused_for="14"),
        task("pattern", repositories=[""]),
        task("query", protect_query="[?"),
        task("no list", protect_query="length(@)"),
        task("budget", **{**all_, "max_images": 1}),
        task("bytes", **{**all_, "max_bytes": "1kB"}),
        task("left", **{**all_, "min_images_left": 99}),
        task("no file", compose_files=["/srv/none.yml"]),
        task("no plan", apply="/etc/hostname"),
    ]
    found = full.results(HOSTS, tasks)
    words = {
        "unit": "has no unit",
        "pattern": "repositories",
        "query": "JMESPath",
        "no list": "a list of images was wanted, it gives int",
        "budget": "max_images",
        "bytes": "max_bytes",
        "left": "min_images_left",
        "no file": "/srv/none.yml",
        "no plan": "a plan of image_prune was wanted",
    }
    for node in NODES:
        for name, text in words.items():
            told = found[name][node]
            assert told["failed"] and not told["changed"], (node, name)
            assert text in told["msg"], (node, name, told["msg"])
        assert goes(found["budget"][node]) >= UNUSED
        assert full.held(node) == before[node]


def test_plan_and_apply(full: Rig) -> None:
    """Only what was planned goes, and only where it is as it was."""
    path = {"plan_path": "/var/tmp/plan.json"}
    (plan,) = full.results(HOSTS, [task("plan", scope="unused", **path)]).values()
    change = f"""
        docker create --name late {TEAM}/app:1.0 true
        docker tag {TEAM}/app:1.1 {TEAM}/again:1
        docker rmi {TEAM}/app:1.2
        docker tag {TEAM}/run:1 {TEAM}/new:1
    """
    on_each(lambda node: full.inside(node, "sh", "-ec", change), NODES)
    try:
        tasks = [
            task("same", scope="unused", **path),
            task("foreseen", True, apply="/var/tmp/plan.json"),
            task("apply", apply="/var/tmp/plan.json"),
            task("again", apply="/var/tmp/plan.json"),
        ]
        tasks[0]["check_mode"] = True
        found = full.results(HOSTS, tasks)
        for node in NODES:
            assert plan[node]["changed"] and goes(plan[node]) >= UNUSED
            assert found["same"][node]["changed"]
            for name in ("foreseen", "apply"):
                told = found[name][node]
                acted = {one["name"].removeprefix(f"{TEAM}/"): one for one in told["images"]}
                assert "late" in acted["app:1.0"]["reason"], (node, name)
                assert acted["app:1.0"]["action"] == "kept"
                assert f"{TEAM}/again:1" in acted["app:1.1"]["reason"]
                assert acted["app:1.1"]["action"] == "kept"
                assert acted["app:1.2"]["action"] == "none"
                assert acted["old:1970"]["action"] == "removed"
            assert found["apply"][node]["changed"] and not found["again"][node]["changed"]
            there = {one.removeprefix(f"{TEAM}/") for one in names_of(full, node)}
            assert there >= {"app:1.0", "app:1.1", "again:1", "new:1", *KEPT}
            assert "old:1970" not in there
            starts(full, node)
    finally:
        undo = f"docker rm late; docker rmi {TEAM}/again:1 {TEAM}/new:1; rm /var/tmp/plan.json"
        on_each(lambda node: full.inside(node, "sh", "-c", undo, check=False), NODES)


def test_free_target(full: Rig) -> None:
    """A target that is reached already wants nothing; one that cannot be reached takes all."""
    tasks = [
        task("none", True, scope="unused", free_target="1MB"),
        task("all", True, scope="unused", free_target="100%"),
    ]
    found = full.results(HOSTS, tasks)
    for node in NODES:
        assert found["none"][node]["plan"] == []
        assert goes(found["all"][node]) >= UNUSED
        order = [bool(one["references"]) for one in found["all"][node]["plan"]]
        assert order == sorted(order), "what has no name goes first"


def cleanup(
    rig: Rig, flags: Sequence[str] = (), hosts: dict[str, Json] | None = None, **options: Any
) -> tuple[Any, list[list[str]]]:
    """A run of the playbook, and the lines of its table, by columns."""
    place = rig.work / f"run-{rig._runs + 1}"
    variables = {
        "image_cleanup_scope": "unused",
        "image_cleanup_protect": ["*/shop/*"],
        "image_cleanup_log_path": "/var/tmp/fleet-images.log",
        "image_cleanup_report_path": str(place / "report.json"),
        **options,
    }
    run = rig.play(CLEANUP, variables, hosts=hosts, flags=flags)
    table = run.output.rpartition("image_cleanup: images and bytes of every node\n")[2]
    lines = table.partition("\nTASK [")[0].splitlines()
    return run, [re.split(r" {2,}", line) for line in lines]


def cells(table: list[list[str]], node: str) -> list[str]:
    return next(line for line in table if line[0] == node)


def test_the_role(full: Rig) -> None:
    """--check --diff and the run name the same; a dead host hides nothing; again is quiet."""
    before = full.held_by_all()
    foreseen, told = cleanup(full, ["--check", "--diff"])
    assert full.held_by_all() == before
    assert f"- {TEAM}/app:1.0 (" in foreseen.output
    assert f"  {TEAM}/other/run:1 (" in foreseen.output
    dead = NODES[1]
    full.stop(dead)
    try:
        run, table = cleanup(full)
    finally:
        full.start(dead)
    assert foreseen.code == 0 and run.code != 0
    assert "unreachable" in run.rows[dead]["reason"]
    columns = ["node", "engine", "store", "before", "removed", "failed", "after"]
    assert table[0] == [*columns, "predicted", "measured", "seconds"]
    for node in NODES:
        if node == dead:
            continue
        # Up to the bytes that are predicted; what is measured only a run tells.
        assert cells(table, node)[:8] == cells(told, node)[:8]
        assert cells(told, node)[8] == "-" != cells(table, node)[8]
        left = {one.removeprefix(f"{TEAM}/") for one in names_of(full, node)}
        assert left >= KEPT and not left & UNUSED
        log = full.inside(node, "cat", "/var/tmp/fleet-images.log").splitlines()
        assert len(log) == run.rows[node]["removed"]
        assert {"at", "what", "name", "id", "reason", "bytes"} <= set(json.loads(log[0]))
        full.inside(node, "rm", "/var/tmp/fleet-images.log")
        starts(full, node)
    again, _table = cleanup(full, ["--limit", f"nodes,!{dead}"])
    assert again.code == 0
    assert not any(row["changed"] for row in again.rows.values())
    # One task reaches a host; the survey has the same, and skips it.
    tasks = re.findall(
        r"TASK \[fleet.images.image_cleanup : (?!Validating)(.*?)\] \*", again.output
    )
    assert tasks.count("Plan what may go, and remove it") == 2
    assert {*tasks} - ON_THE_CONTROLLER == {"Plan what may go, and remove it"}
    survey = again.output.partition("PLAY [Clean up images by policy]")[0]
    planned = survey.partition("Plan what may go, and remove it]")[2]
    assert "\nskipping: " in planned and "\nok: " not in planned


def test_batches_and_last_copies(full: Rig) -> None:
    """A copy stays of what no registry serves; too many failures leave the rest alone."""
    bad = {NODES[0]: {"image_cleanup_unused_for": "soon"}}
    run, _table = cleanup(full, hosts=bad, fleet_serial=1, image_cleanup_max_failures=0)
    assert run.code != 0
    assert "'soon' is no duration" in run.rows[NODES[0]]["reason"]
    for node in NODES[1:]:
        assert run.rows[node]["left_alone"] and run.rows[node]["removed"] == 0
        assert {one.removeprefix(f"{TEAM}/") for one in names_of(full, node)} >= UNUSED
    # The same archive went to all: one ID per kind of store.
    run, _table = cleanup(full, image_cleanup_keep_last_copy=True, fleet_serial=2)
    assert run.code == 0, run.output
    holders = [node for node in NODES if f"{TEAM}/old:1970" in names_of(full, node)]
    kinds = [STORES[node] for node in holders]
    assert sorted(kinds) == sorted(set(kinds)), "one copy of each, and not on every host"
    assert kinds
