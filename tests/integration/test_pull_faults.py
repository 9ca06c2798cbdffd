# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""image_pull against real Engines and registries that answer 429, 500, break off or say nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from pulling import (
    FAULTY,
    NGINX,
    TOOL,
    actions,
    asked,
    connected,
    empty,
    faulty_registries,
    id_of,
    is_classic,
    pull,
    small_disks,
)
from rig import NODES, Rig, wait_for

NO_LOGIN = {"registry_username": None, "registry_password": None}
PASSING = ("m429x3", "m500x2", "m503x2", "mcutx2", "b500x1", "bcutx1", "b429x1")
# The sshd of the tunnel's session. (Without its command alone, ssh serves what is under way.)
_HANG_UP = "kill -9 $(awk '{print $4}' /proc/$(pgrep -x cat)/stat)"
LASTING = ("m401x99", "m403x99", "m404x99")
# By the blobs, which another image has; what each ends with on every Engine. One after the other,
# the false blob last: another pull of that digest would meet it in containerd.
LASTING_BLOBS = {
    "b401x99": "give registry_username and registry_password",
    "b403x99": "give registry_username and registry_password",
    "b404x99": "",  # "unknown blob", or "not found"
    "bswapx99": "what it serves is not what that digest names",
}


@pytest.fixture(scope="module")
def faulty(rig: Rig) -> Iterator[Rig]:
    with connected(rig), faulty_registries(rig):
        yield rig


def image(case: str, name: str = "tool") -> str:
    return f"{FAULTY}/{case}/shop/{name}:1"


def test_what_passes_and_what_lasts(faulty: Rig) -> None:
    empty(faulty)
    nginx, *_manifest = faulty.manifest("shop/nginx", "1")
    kept = image(PASSING[0])
    swapped = {"name": f"{image('mswapx99', 'nginx')}@{nginx}", "as": kept}
    tasks = [
        pull("passing", [image(case) for case in PASSING], **NO_LOGIN, parallel=7),
        pull("lasting", [image(case) for case in LASTING], **NO_LOGIN),
        pull(
            "lasting blobs",
            [image(case, "nginx") for case in LASTING_BLOBS],
            **NO_LOGIN,
            parallel=1,
        ),
        pull("swapped", [swapped], **NO_LOGIN),
        pull("stall", [image("bstallx1")], **NO_LOGIN, stall_timeout=4),
    ]
    told = faulty.results("nodes", tasks)
    for node in NODES:
        passing = told["passing"][node]
        assert passing["changed"], passing
        assert not passing.get("failed"), passing
        assert {action for _name, action in actions(passing)} == {"pulled"}
        tries = {case: one["attempts"] for case, one in zip(PASSING, passing["images"])}
        # All share their blobs: which ones a pull still asks for is chance.
        assert all(1 < tries[case] < 5 for case in PASSING[1:3]), (node, tries)
        times = [at for at, line in asked(faulty, node, "m429x3") if "/manifests/1" in line]
        # Engines with the containerd store ask again by themselves, at once, and may get there.
        waited = max(b - a for a, b in zip(times, times[1:]))
        assert tries["m429x3"] == 1 or waited >= 2.9, "Retry-After is 3 seconds"
        assert tries["m429x3"] > 1 or not is_classic(node)

        lasting = told["lasting"][node]
        assert lasting["failed"]
        assert not lasting["changed"]
        assert [one["attempts"] for one in lasting["images"]] == [1, 1, 1]
        lasting = told["lasting blobs"][node]
        assert lasting["failed"] and not lasting["changed"]
        for (case, step), one in zip(LASTING_BLOBS.items(), lasting["images"]):
            assert (one["action"], one["attempts"]) == ("failed", 1), (case, one)
            assert step in one["reason"], (case, one)
        swap = told["swapped"][node]
        assert swap["failed"] and not swap["changed"]
        assert swap["images"][0]["attempts"] == 1, swap
        assert "is not what that digest names" in swap["msg"], swap["msg"]
        assert id_of(faulty, node, kept) == passing["images"][0]["id"]
        assert told["stall"][node]["images"][0]["action"] in ("pulled", "none")
        names = {*(image(case) for case in PASSING), image("bstallx1")}
        assert faulty.names(node) == names


def test_two_runs_at_once(faulty: Rig) -> None:
    """The second waits for the first, and then finds the images there."""
    empty(faulty)
    wanted = [image("bslowx99", "nginx")]
    plays = [
        [{"hosts": "nodes", "gather_facts": False, "tasks": [pull(name, wanted, **NO_LOGIN)]}]
        for name in ("one", "two")
    ]
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(faulty.play, play) for play in plays]
        codes = [run.result().code for run in runs]
    assert codes == [0, 0]
    outputs = [run.result().output for run in runs]
    for node in NODES:
        changed = [f"changed: [{node}]" in output for output in outputs]
        assert sorted(changed) == [False, True], node
        blobs = [line for _at, line in asked(faulty, node, "bslowx99") if "/blobs/" in line]
        assert len(set(blobs)) == len(blobs), "no blob was pulled twice"
        assert faulty.names(node) == set(wanted)


def test_a_tunnel_that_dies_during_a_pull(faulty: Rig) -> None:
    """The Engine's error, and which tunnel ended; nothing is left, and the next run gets there."""
    empty(faulty)
    relay, *others = NODES
    nodes = [next(node for node in others if is_classic(node) is kind) for kind in (True, False)]
    wanted = "site.example/bslowx{{ 5 + groups.nodes.index(inventory_hostname) }}/shop/nginx:1"
    tunnel = {"host": relay, "port": int(FAULTY.rpartition(":")[2])}
    task = pull("pull", [wanted], **NO_LOGIN, tunnel=tunnel, retries=1)
    cases = {node: f"bslowx{5 + NODES.index(node)}" for node in nodes}

    def is_under_way(node: str) -> bool:
        return any("/blobs/" in line for _at, line in asked(faulty, relay, cases[node]))

    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(faulty.results, ",".join(nodes), [task])
        for node in nodes:
            wait_for(f"a blob for {node}", lambda node=node: run.done() or is_under_way(node))
            faulty.inside(node, "sh", "-c", _HANG_UP, check=False)
        told = run.result()["pull"]
    for node in nodes:
        assert told[node]["failed"] and told[node]["tunnel_failed"], told[node]
        assert f"the tunnel to {node} was wanted to the end" in told[node]["msg"]
        assert faulty.names(node) == set()
    again = faulty.results(",".join(nodes), [{**task, "name": "again"}])["again"]
    assert not any(again[node].get("failed") for node in nodes), again
    assert all(faulty.names(node) == {f"site.example/{cases[node]}/shop/nginx:1"} for node in nodes)


def test_a_full_disk(faulty: Rig) -> None:
    """What came before stays, with its tags; and the next step is told."""
    nginx, *_manifest = faulty.manifest("shop/nginx", "1")
    big = {"name": f"{NGINX}:1@{nginx}", "as": f"{TOOL}:1"}
    with small_disks(faulty, "40m"):
        tasks = [pull("fits", [f"{TOOL}:1"]), pull("full", [f"{TOOL}:2", big], parallel=1)]
        told = faulty.results("nodes", tasks)
        for node in NODES:
            full = told["full"][node]
            assert full["failed"] and full["changed"], full
            assert [action for _name, action in actions(full)] == ["pulled", "failed"]
            assert "no space left on device" in full["msg"], full["msg"]
            assert full["msg"].endswith("free some of the disk of the Engine (docker image prune)")
            assert full["images"][1]["attempts"] == 1
            assert faulty.names(node) == {f"{TOOL}:1", f"{TOOL}:2"}
            assert id_of(faulty, node, f"{TOOL}:1") == told["fits"][node]["images"][0]["id"]


def test_an_engine_that_restarts_during_a_pull(faulty: Rig) -> None:
    """Another try gets there once the Engine is back; without one, its end is told."""
    empty(faulty)
    wanted = [image("bslowx98", "nginx")]
    once = [next(node for node in NODES if is_classic(node) is kind) for kind in (True, False)]
    retries = "{{ 0 if inventory_hostname in " + str(once) + " else 5 }}"
    task = pull("pull", wanted, **NO_LOGIN, retry_delay=1, retries=retries)

    def restart(node: str) -> None:
        wait_for(
            f"a blob for {node}",
            lambda: any("/blobs/" in line for _at, line in asked(faulty, node, "bslowx98")),
        )
        faulty.inside(node, "sh", "-c", "engine-stop; engine-start")

    with ThreadPoolExecutor(1 + len(NODES)) as pool:
        run = pool.submit(faulty.results, "nodes", [task])
        list(pool.map(restart, NODES))
        told = run.result()["pull"]
    for node in NODES:
        one = told[node]
        if node in once:
            assert one["failed"] and not one["changed"]
            assert actions(one) == [(wanted[0], "failed")]
            assert one["msg"].startswith(f"{wanted[0]}: wanted from {FAULTY}, the Engine said: ")
            assert one["msg"].endswith("; run it again, layers that came are kept"), one["msg"]
            assert faulty.names(node) == set()
        else:
            assert not one.get("failed"), one["msg"]
            assert one["images"][0]["attempts"] > 1
            assert faulty.names(node) == set(wanted)
    again = faulty.results("nodes", [pull("again", wanted, **NO_LOGIN)])["again"]
    for node in NODES:
        assert actions(again[node])[0][1] in ("pulled", "none"), again[node]
        assert faulty.names(node) == set(wanted)
        if is_classic(node):
            assert faulty.inside(node, "docker", "run", "--rm", *_none(wanted[0])) is not None


def _none(name: str) -> tuple[str, ...]:
    return ("--pull", "never", "--network", "none", "--entrypoint", "true", name)
