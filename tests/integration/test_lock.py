# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lock taken without pulling pins the fleet, also after its tag was moved in the registry."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from rig import AIRGAP, JUMP_HOST, NODES, REGISTRY, STORES, Json, Rig

REPOSITORY = "shop/tool"
IMAGE = f"{REGISTRY}/{REPOSITORY}:moving"
AMD64 = "linux/amd64"
LOCK = "/var/tmp/test-lock.json"
CA = "/etc/fleet/registry-ca.pem"


@dataclass(frozen=True)
class Locked:
    """The digests of the tag before and after it was moved, and the results by task."""

    old: str
    new: str
    results: Json

    def of(self, task: str) -> Json:
        """A task's result on the bastion."""
        found: Json = self.results[task][JUMP_HOST]
        return found

    @property
    def lock(self) -> Json:
        """What was locked before the tag moved."""
        lock: Json = self.of("lock")["lock"]
        return lock


def lock_task(name: str, **options: object) -> Json:
    options = {"lock_path": LOCK, "dest": LOCK, "registry_validate_certs": False, **options}
    return {"name": name, "fleet.images.image_lock": options}


@pytest.fixture(scope="module")
def locked(rig: Rig) -> Locked:
    """The lock of a tag that was moved afterwards; every step foreseen, done and done again."""
    rig.inside(JUMP_HOST, "rm", "-f", LOCK)
    for node in NODES:
        rig.inside(node, "docker", "rmi", "--force", IMAGE, check=False)
    old = rig.move_tag(REPOSITORY, "moving", to="1")
    wanted: Json = {"images": [IMAGE]}
    first = [
        {**lock_task("foresee", **wanted), "check_mode": True},
        lock_task("lock", **wanted),
        {**lock_task("foresee again", **wanted), "check_mode": True},
        lock_task("again", **wanted),
        lock_task("compare", fail_on_drift=True),
    ]
    results = rig.results(JUMP_HOST, first)
    new = rig.move_tag(REPOSITORY, "moving", to="2")
    then = [
        lock_task("pinned", **wanted),
        lock_task("drifted", fail_on_drift=True),
        {**lock_task("foresee update", update=True), "check_mode": True, "diff": True},
        lock_task("update", update=True, dest=f"{LOCK}.new"),
    ]
    return Locked(old, new, {**results, **rig.results(JUMP_HOST, then)})


def test_it_is_made_once(locked: Locked, rig: Rig) -> None:
    names = ("foresee", "lock", "foresee again", "again", "compare")
    assert [locked.of(name)["changed"] for name in names] == [True, True, False, False, False]
    assert locked.of("foresee")["lock"] == locked.lock
    assert json.loads(rig.inside(JUMP_HOST, "cat", LOCK)) == locked.lock
    assert rig.inside(JUMP_HOST, "stat", "-c", "%a", LOCK).strip() == "644"
    (entry,) = locked.lock["images"].values()
    assert entry["digest"] == locked.old
    assert sorted(entry["platforms"]) == [AMD64, "linux/arm64"]
    assert all(layer["diff_id"] for layer in entry["platforms"][AMD64]["layers"])


def test_drift_is_told_and_changes_nothing(locked: Locked) -> None:
    told = locked.of("drifted")
    assert locked.old != locked.new
    assert told["failed"] and not told["changed"]
    assert f"{IMAGE}: the lock has {locked.old}, the registry serves {locked.new}" in told["msg"]
    assert not locked.of("pinned")["changed"]
    assert locked.of("pinned")["lock"] == locked.lock


def test_an_update_is_asked_for(locked: Locked, rig: Rig) -> None:
    for name in ("foresee update", "update"):
        (image,) = locked.of(name)["images"]
        assert (image["action"], image["locked_digest"]) == ("updated", locked.old)
        assert image["digest"] == locked.new
    diff = locked.of("foresee update")["diff"]
    assert diff == {"before": {IMAGE: locked.old}, "after": {IMAGE: locked.new}}
    assert json.loads(rig.inside(JUMP_HOST, "cat", LOCK)) == locked.lock


def test_nodes_plan_with_it(locked: Locked, rig: Rig) -> None:
    task = {"name": "plan", "fleet.images.image_plan": {"lock": locked.lock}}
    planned = rig.results("nodes", [task])["plan"]
    entry = locked.lock["images"][IMAGE]["platforms"][AMD64]
    config = entry["config"]["digest"]
    for node in NODES:
        (image,) = planned[node]["images"]
        assert (image["action"], image["digest"]) == ("loaded", locked.old), planned[node]
        assert image["id"] == (locked.old if STORES[node] == "containerd" else config)
        assert image["bytes"] >= sum(layer["size"] for layer in entry["layers"])


def test_the_fleet_gets_what_was_locked(locked: Locked, rig: Rig) -> None:
    path = rig.work / "images.lock.json"
    path.write_text(json.dumps(locked.lock))
    variables = {"fleet_images": [IMAGE], "airgap_lock": str(path)}
    run = rig.play(AIRGAP, variables)
    assert run.code == 0, run.output
    config = locked.lock["images"][IMAGE]["platforms"][AMD64]["config"]["digest"]
    for node in NODES:
        (image,) = run.rows[node]["images"]
        assert (image["action"], image["digest"]) == ("loaded", locked.old)
        shown = rig.inside(node, "docker", "inspect", "--format", "{{.Id}}", IMAGE).strip()
        assert shown == (locked.old if STORES[node] == "containerd" else config)
        rig.inside(node, "docker", "rmi", "--force", IMAGE)


def test_an_authority_and_a_login(locked: Locked, rig: Rig) -> None:
    secure = {"images": ["registry.fleet.test:5443/shop/tool:1"], "registry_validate_certs": True}
    login = {"registry_username": "shop", "registry_password": "s3cret-for-tests"}
    fresh = {"lock_path": None, "dest": None, **secure}
    tasks = [
        lock_task("right", **fresh, **login, registry_ca_path=CA),
        lock_task("no login", **fresh, registry_ca_path=CA),
        lock_task("no authority", **fresh, **login),
    ]
    done = rig.results(JUMP_HOST, tasks)
    right = done["right"][JUMP_HOST]
    assert [image["digest"] for image in right["images"]] == [locked.old]
    assert "refused access" in done["no login"][JUMP_HOST]["msg"]
    assert (
        "name its authority's certificate in registry_ca_path"
        in (done["no authority"][JUMP_HOST]["msg"])
    )
    assert "s3cret-for-tests" not in json.dumps(done)
    rig.inside(JUMP_HOST, "rm", "-f", f"{LOCK}.new", LOCK)
