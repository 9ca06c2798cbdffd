# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A relay as a container of the bastion's own Engine, of a registry image that it has."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from pulling import command, connected, pull
from rig import JUMP_HOST, REGISTRY, Json, Rig

# A node with an Engine plays the bastion; others pull through it.
BASTION = "engine28-classic"
BY_NETWORK, BY_TUNNEL = "engine20-classic", "engine28-containerd"
IMAGE = "site.example/registry:2"
TOOL, NGINX = f"{REGISTRY}/shop/tool:1", f"{REGISTRY}/shop/nginx:1"
STORE = "/var/tmp/relay-store"
NO_LOGIN = {"registry_username": None, "registry_password": None}
# The program of Debian's package, and what it is linked with.
_PACK = (
    "tar -C / -chf - usr/bin/docker-registry lib/x86_64-linux-gnu/libc.so.6"
    " lib64/ld-linux-x86-64.so.2"
)
_LOOK = (
    "docker ps --all --quiet --filter label=fleet.images.relay | xargs -r docker inspect --format"
    " '{{ '{{json .HostConfig}}' }}'"
)


@pytest.fixture(scope="module")
def bastion(rig: Rig) -> Iterator[Rig]:
    """The Engine of the node has the image, by `docker import`; the registry is within reach."""
    change = "--change 'ENTRYPOINT [\"/usr/bin/docker-registry\"]'"
    with connected(rig):
        rig.pipe(JUMP_HOST, _PACK, BASTION, f"docker import {change} - {IMAGE}")
        yield rig
        rig.inside(BASTION, "rm", "-rf", STORE)


def relay(name: str, check: bool = False, **args: object) -> Json:
    given = {"store": STORE, "lock": "{{ result_of_fetched.lock }}", "image": IMAGE, **args}
    if args.get("state") == "stopped":
        given = {"store": STORE, "state": "stopped"}
    return {"name": name, "fleet.images.image_relay": given, "check_mode": check, "diff": True}


def test_create_repeat_change_remove(bastion: Rig) -> None:
    fetch = {"images": [TOOL], "store": STORE, "registry_validate_certs": False}
    login = {"htpasswd": "shop:$2y$05$" + "a" * 53}
    through = {
        "via": "127.0.0.1:{{ result_of_created.port }}",
        "lock": "{{ result_of_fetched.lock }}",
    }
    tasks = [
        {"name": "fetched", "fleet.images.image_fetch": fetch},
        relay("not there", image="site.example/nothing:1"),
        relay("create foreseen", True),
        relay("created"),
        relay("repeat foreseen", True),
        relay("repeated"),
        pull("pulled", None, **NO_LOGIN, **through),
        command("looked", _LOOK),
        relay("change foreseen", True, **login),
        relay("changed", **login),
        relay("remove foreseen", True, state="stopped"),
        relay("removed", state="stopped"),
        relay("removed again", state="stopped"),
        command("left", "docker ps --all --quiet; docker volume ls --quiet; ls -A " + STORE),
    ]
    told = {name: on[BASTION] for name, on in bastion.results(BASTION, tasks).items()}
    absent = told.pop("not there")
    assert absent["failed"] and not absent["changed"]
    assert "does not have the image; load it there (image_load)" in absent["msg"]
    assert [name for name, one in told.items() if one.get("failed")] == [], told
    changed = {name: one["changed"] for name, one in told.items()}
    assert changed == {
        name: name not in ("repeat foreseen", "repeated", "removed again", "looked", "left")
        for name in told
    }
    created = told["created"]
    assert told["create foreseen"]["diff"] == created["diff"]
    assert told["remove foreseen"]["diff"] == told["removed"]["diff"]
    for name in ("repeat foreseen", "repeated"):
        assert (told[name]["pid"], told[name]["port"]) == (created["pid"], created["port"])
    assert told["changed"]["pid"] != created["pid"]
    assert told["changed"]["port"] == created["port"]
    assert [one["action"] for one in told["pulled"]["images"]] == ["pulled"]
    (host,) = map(json.loads, told["looked"]["stdout_lines"])
    assert host["RestartPolicy"]["Name"] in ("no", "")
    assert (host["NetworkMode"], host["ReadonlyRootfs"]) == ("host", True)
    assert host["Binds"] == [f"{STORE}/.relay/relay:{STORE}/.relay/relay:ro"]
    # Neither a container nor a volume, and of the store what was there before.
    assert set(told["left"]["stdout_lines"]) >= {"blobs", "index.json", "oci-layout"}
    assert ".relay" not in told["left"]["stdout_lines"]
    assert all(len(line) < 12 for line in told["left"]["stdout_lines"]), told["left"]
    assert IMAGE in bastion.names(BASTION)


@pytest.mark.parametrize(("node", "way"), [(BY_NETWORK, "network"), (BY_TUNNEL, "tunnel")])
def test_preseed_through_it(bastion: Rig, node: str, way: str) -> None:
    hosts = {"hosts": node, "gather_facts": False}
    roles = [{"role": "fleet.images.image_relay"}, {"role": "fleet.images.preseed"}]
    ends = [("fleet.images.preseed", "report"), ("fleet.images.image_relay", "close")]
    tasks = [
        {"ansible.builtin.include_role": {"name": name, "tasks_from": part}} for name, part in ends
    ]
    network = {"preseed_via": "{{ image_relay_result.via }}"}
    network["preseed_via_ca"] = "{{ image_relay_result.ca }}"
    variables = {
        "fleet_images": [NGINX],
        "fleet_bastion": BASTION,
        "image_relay_image": IMAGE,
        "image_relay_store": STORE,
        "image_relay_transport": way,
        "image_relay_registry_validate_certs": False,
        "preseed_report_path": str(bastion.work / f"run-{bastion._runs + 1}" / "report.json"),
        **(network if way == "network" else {"preseed_via": "tunnel"}),
    }
    run = bastion.play([{**hosts, "roles": roles}, {**hosts, "tasks": tasks}], variables)
    assert run.code == 0, run.output
    assert [one["action"] for one in run.rows[node]["images"]] == ["pulled"]
    assert NGINX in bastion.names(node)
    assert bastion.inside(BASTION, "docker", "ps", "--all", "--quiet") == ""
