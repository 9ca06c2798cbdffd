# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A relay that stays between plays, of the role image_relay: for preseed, and with a login."""

from __future__ import annotations

import re

import pytest
from fleetlib.hosts import BASTIONS
from rig import JUMP_HOST, NEW_NGINX, NODES, REGISTRY, ROOT, SEED, Json, Rig, Run

LOGIN = (ROOT / "tests" / "fleet" / "hostfiles" / "htpasswd").read_text()
CREDENTIALS = {"registry_username": "shop", "registry_password": "s3cret-for-tests"}
NETWORK = {"via": "{{ image_relay_result.via }}", "via_ca": "{{ image_relay_result.ca }}"}
TOOL = f"{REGISTRY}/shop/tool:1"
RELAY = {"hosts": "nodes", "gather_facts": False, "roles": ["fleet.images.image_relay"]}


def included(role: str, part: str) -> Json:
    """A play over the nodes, of one part of a role."""
    include = {"name": f"fleet.images.{role}", "tasks_from": part}
    tasks = [{"ansible.builtin.include_role": include}]
    return {"hosts": "nodes", "gather_facts": False, "tasks": tasks}


CLOSE = included("image_relay", "close")


def plays(pull: Json) -> list[Json]:
    args = {"lock": "{{ image_relay_result.lock }}", **pull}
    tasks = [{"fleet.images.image_pull": args}]
    return [RELAY, {"hosts": "nodes", "gather_facts": False, "serial": 3, "tasks": tasks}, CLOSE]


def variables(rig: Rig, **more: object) -> Json:
    bastion = next(host for host in BASTIONS if host.name == JUMP_HOST)
    return {
        "fleet_images": [NEW_NGINX],
        "image_relay_address": rig.fleet.address(bastion, "nodes"),
        "image_relay_registry_validate_certs": False,
        **more,
    }


@pytest.mark.parametrize(
    "way",
    [
        {"image_relay_transport": "tunnel", "preseed_via": "tunnel"},
        {
            "image_relay_transport": "network",
            "preseed_via": "{{ image_relay_result.via }}",
            "preseed_via_ca": "{{ image_relay_result.ca }}",
        },
    ],
    ids=["tunnel", "network"],
)
def test_preseed_on_hosts_without_a_way_out(seeded: Rig, way: Json) -> None:
    """Every kind of Engine, in batches; a second run changes nothing, and pulls nothing."""
    batches = {"hosts": "nodes", "gather_facts": False, "serial": 3}
    before = [RELAY, {**batches, "roles": ["fleet.images.preseed"]}, included("preseed", "report")]

    def run(*more: Json) -> Run:
        report = str(seeded.work / f"run-{seeded._runs + 1}" / "report.json")
        wanted = {"fleet_images": [NEW_NGINX, TOOL], "preseed_report_path": report, **way}
        found = seeded.play([*before, *more], variables(seeded, **wanted))
        assert found.code == 0, found.output
        assert [found.rows[node]["done"] for node in NODES] == [True] * len(NODES)
        return found

    first = run()
    digests = set()
    for node in NODES:
        row = first.rows[node]
        assert row["changed"] and [one["action"] for one in row["images"]] == ["pulled"] * 2
        # By digest, and only what lacked: a top layer, and the tool.
        assert 0 < row["bytes"] < 3_000_000, row
        digests.add(tuple(one["digest"] for one in row["images"]))
        assert seeded.names(node) == {*SEED, NEW_NGINX, TOOL}
        assert "127.0.0.1" not in " ".join(seeded.held(node))
        said = seeded.inside(node, "docker", "run", "--rm", "--network", "none", TOOL)
        assert "shop tool version 1" in said
    assert len(digests) == 1
    held = seeded.held_by_all()
    again = run(CLOSE)
    for node in NODES:
        row = again.rows[node]
        assert not row["changed"] and row["bytes"] == 0
        assert [(one["action"], one["attempts"]) for one in row["images"]] == [("none", 0)] * 2
    # The relay of the first run, too, stayed as it was; the last play closed it.
    recap = again.output.rpartition("PLAY RECAP")[2]
    assert len(re.findall(r"changed=0 ", recap)) == len(NODES) - 1, recap
    assert seeded.held_by_all() == held
    assert seeded.inside(JUMP_HOST, "pgrep", "-f", "docker-registry", check=False) == ""
    seeded.seed()


def test_a_relay_wants_the_login_that_it_was_given(seeded: Rig) -> None:
    more = variables(seeded, image_relay_htpasswd=LOGIN)
    run = seeded.play(plays({**NETWORK, "retries": 0}), more)
    assert run.code != 0
    assert "registry_username" in run.output
    assert all(seeded.names(node) == set(SEED) for node in NODES)
    # The play that closes it did not run, since every host had failed: the next run takes it over.
    again = seeded.play(plays({**NETWORK, **CREDENTIALS}), more)
    assert again.code == 0, again.output
    assert CREDENTIALS["registry_password"] not in run.output + again.output
    for node in NODES:
        assert seeded.names(node) == {*SEED, NEW_NGINX}
    assert seeded.inside(JUMP_HOST, "pgrep", "-f", "docker-registry", check=False) == ""
    seeded.seed()
