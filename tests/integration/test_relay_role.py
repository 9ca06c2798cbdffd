# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A relay that stays between plays, as the role image_relay opens it and its README uses it."""

from __future__ import annotations

import pytest
from fleetlib.hosts import BASTIONS
from rig import JUMP_HOST, NEW_NGINX, NODES, ROOT, SEED, Json, Rig

LOGIN = (ROOT / "tests" / "fleet" / "hostfiles" / "htpasswd").read_text()
CREDENTIALS = {"registry_username": "shop", "registry_password": "s3cret-for-tests"}
NETWORK = {"via": "{{ image_relay_result.via }}", "via_ca": "{{ image_relay_result.ca }}"}
TUNNEL = {"tunnel": "{{ image_relay_result.tunnel }}"}


def plays(pull: Json) -> list[Json]:
    nodes = {"hosts": "nodes", "gather_facts": False}
    close = {"name": "fleet.images.image_relay", "tasks_from": "close"}
    args = {"lock": "{{ image_relay_result.lock }}", **pull}
    return [
        {**nodes, "roles": [{"role": "fleet.images.image_relay"}]},
        {**nodes, "serial": 3, "tasks": [{"fleet.images.image_pull": args}]},
        {**nodes, "tasks": [{"ansible.builtin.include_role": close}]},
    ]


def variables(rig: Rig, **more: str) -> Json:
    bastion = next(host for host in BASTIONS if host.name == JUMP_HOST)
    return {
        "fleet_images": [NEW_NGINX],
        "image_relay_address": rig.fleet.address(bastion, "nodes"),
        "image_relay_registry_validate_certs": False,
        **more,
    }


@pytest.mark.parametrize(
    ("transport", "pull", "htpasswd"),
    [
        ("network", NETWORK, ""),
        ("network", {**NETWORK, **CREDENTIALS}, LOGIN),
        ("tunnel", TUNNEL, ""),
    ],
    ids=["network", "login", "tunnel"],
)
def test_hosts_pull_in_batches_and_nothing_stays(
    seeded: Rig, transport: str, pull: Json, htpasswd: str
) -> None:
    more = variables(seeded, image_relay_transport=transport, image_relay_htpasswd=htpasswd)
    run = seeded.play(plays(pull), more)
    assert run.code == 0, run.output
    assert CREDENTIALS["registry_password"] not in run.output
    for node in NODES:
        assert seeded.names(node) == {*SEED, NEW_NGINX}
        assert "127.0.0.1" not in " ".join(seeded.held(node))
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
    seeded.seed()
