# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every Engine as a source: its images in one archive, which plain docker and others take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rig import NODES, REGISTRY, STORES, Json, Rig
from workshop import AMD64, BIG, LOCAL, WRAPPER, Workshop, fetch_task, measured, packed, peaks_on

TOOLS = [f"{REGISTRY}/shop/tool:1", f"{REGISTRY}/shop/tool:2"]
HERE = "/var/tmp/daemon-source"
PYTHON = f"{HERE}/measuring-python"
SAVED = f"{HERE}/tools.tar"
# Each Engine loads what the next one saved.
FROM = dict(zip(NODES, [*NODES[1:], NODES[0]]))
HEAVY = "engine20-classic"
MOST_GROWTH = 64 << 20
PART = 500_000
RUN = " && ".join(f"docker run --rm --network none {tool}" for tool in TOOLS)
REMOVE = f"docker rmi --force {' '.join(TOOLS)} >&2"
PLAIN = f"cd {HERE} && sha256sum --check --quiet tools.tar.sha256 && {REMOVE} && \
cat tools.tar.part* | docker load >&2 && {RUN} && {REMOVE}"


@dataclass(frozen=True)
class Saves:
    """What the tasks gave, by name and host, and the most bytes of memory that they took."""

    results: Json
    peaks: dict[str, int]


def shell(name: str, line: str) -> Json:
    return {"name": name, "ansible.builtin.command": {"argv": ["sh", "-c", line]}}


def count(name: str) -> Json:
    """How many images an Engine has exported from now on: it notes each."""
    since = int(time.time())
    return shell(name, f"docker events --since {since} --until 0s --filter event=save | wc -l")


def save(name: str, **options: object) -> Json:
    args = {"images": TOOLS, "path": SAVED, "split_size": str(PART), "checksum": True}
    return {"name": name, "fleet.images.image_archive": {**args, **options}}


def tools(rig: Rig, work: Path) -> Path:
    """A bundle of both versions, on the controller."""
    place = {"store": f"{work}/store", "lock": "{{ result_of_fetch.lock }}", "platform": AMD64}
    tasks = [
        fetch_task(rig, "fetch", work / "store", list(TOOLS)),
        {"name": "archive", "fleet.images.image_archive": {**place, "path": f"{work}/tools.tar"}},
    ]
    done = rig.results("localhost", tasks, LOCAL)
    assert not any(result["localhost"].get("failed") for result in done.values()), done
    return work / "tools.tar"


def bring(rig: Rig, work: Path) -> dict[str, str]:
    """The parts of every node on the controller; node -> the archive's name there."""
    for node in NODES:
        content = rig.engine.docker("cp", f"{rig.container(node)}:{HERE}/.", str(work / node))
        assert content.returncode == 0
    return {node: str(work / node / "tools.tar") for node in NODES}


@pytest.fixture(scope="module")
def saves(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Json]:
    """What the tasks gave, by name and host."""
    work = tmp_path_factory.mktemp("daemon")
    for node in NODES:
        rig.inside(node, "rm", "-rf", HERE)
    load = {"name": "load", "fleet.images.image_load": {"src": str(tools(rig, work))}}
    results = rig.results(
        "nodes",
        [
            load,
            save("foresee") | {"check_mode": True},
            save("save"),
            save("repeat"),
            save("lacking", images=[TOOLS[0], f"{REGISTRY}/shop/gone:1"], path=f"{HERE}/gone.tar"),
            count("count"),
            shell("list", f"ls -A {HERE}"),
        ],
    )
    archives = bring(rig, work)
    src = "{{ archives[from[inventory_hostname]] }}"
    others = [
        shell("plain", PLAIN),
        {"name": "cross", "fleet.images.image_load": {"src": src}},
        shell("run", RUN),
    ]
    results.update(rig.results("nodes", others, {"archives": archives, "from": FROM}))
    yield results
    for node in NODES:
        rig.inside(node, "sh", "-c", f"rm -rf {HERE}; {REMOVE}")


@pytest.fixture(scope="module")
def heavy(
    saves: Json, rig: Rig, shop: Workshop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Saves]:
    """An image of half a gigabyte, saved by an Engine that has it uncompressed."""
    bundle = {"path": str(tmp_path_factory.mktemp("heavy") / "big.tar"), "images": [BIG]}
    rig.results("localhost", [shop.archive_task("archive", [bundle])], LOCAL)
    content = WRAPPER.format(python="/usr/bin/python3").encode()
    rig.put(HEAVY, packed({Path(PYTHON).name: content}), HERE)
    load = {"src": bundle["path"], "lock": shop.lock_of(BIG), "known": shop.known}
    big = {"images": [BIG], "path": f"{HERE}/big.tar", "store": f"{HERE}/store"}
    tasks = [
        {"name": "load-big", "fleet.images.image_load": load},
        measured(save("save-small", path=f"{HERE}/small.tar", store=f"{HERE}/store"), PYTHON),
        measured({"name": "save-big", "fleet.images.image_archive": big}, PYTHON),
        {"name": "save-big-again", "fleet.images.image_archive": {**big, "path": f"{HERE}/2.tar"}},
        count("count-big"),
    ]
    results = rig.results(HEAVY, tasks)
    yield Saves(results, peaks_on(rig, HEAVY, PYTHON))
    rig.inside(HEAVY, "docker", "rmi", BIG)


@pytest.mark.parametrize("node", NODES)
def test_archive_is_foreseen_made_and_left_alone(saves: Json, node: str) -> None:
    foreseen, made, again = (saves[name][node] for name in ("foresee", "save", "repeat"))
    assert not made.get("failed"), made
    assert foreseen["changed"] and made["changed"]
    assert foreseen["bundles"] == [{**made["bundles"][0], "sha256": "", "file_sha256": []}]
    assert not again["changed"]
    assert again["bundles"][0]["sha256"] == made["bundles"][0]["sha256"]
    # One export to foresee and one to make it, of two images each; and one where an image lacked.
    assert int(saves["count"][node]["stdout"]) == 5
    names = saves["list"][node]["stdout_lines"]
    last = len(made["bundles"][0]["files"])
    assert names == [*(f"tools.tar.part{n:03d}" for n in range(1, last + 1)), "tools.tar.sha256"]
    assert last > 1


@pytest.mark.parametrize("node", NODES)
def test_image_that_is_not_there(saves: Json, node: str) -> None:
    result = saves["lacking"][node]
    assert result["failed"] and not result["changed"]
    assert "shop/gone:1: wanted from the Engine at" in result["msg"]


@pytest.mark.parametrize("node", NODES)
def test_plain_docker_load_takes_the_parts(saves: Json, node: str) -> None:
    assert saves["plain"][node]["rc"] == 0, saves["plain"][node]["stderr"]
    told = saves["plain"][node]["stdout_lines"]
    assert told[::2] == ["shop tool version 1", "shop tool version 2"]


@pytest.mark.parametrize("node", NODES)
def test_another_engine_loads_and_runs_it(saves: Json, node: str) -> None:
    loaded, ran = (saves[name][node] for name in ("cross", "run"))
    assert loaded["changed"], loaded
    assert [one["action"] for one in loaded["images"]] == ["loaded", "loaded"]
    assert ran["stdout_lines"][::2] == ["shop tool version 1", "shop tool version 2"]


def test_engines_of_one_kind_write_the_same_bytes(saves: Json) -> None:
    """Whatever their age: a shape of its own, one compression, the registry's digests."""
    found: dict[str, set[str]] = {}
    for node in NODES:
        bundle = saves["save"][node]["bundles"][0]
        found.setdefault(STORES[node], set()).add(bundle["sha256"])
    assert [len(sums) for sums in found.values()] == [1, 1]


def test_memory_does_not_grow_with_the_image(heavy: Saves) -> None:
    made = heavy.results["save-big"][HEAVY]
    assert made["bundles"][0]["bytes"] > 250_000_000, made
    small, big = heavy.peaks["save-small"], heavy.peaks["save-big"]
    assert small > 5_000_000
    assert big - small < MOST_GROWTH


def test_layers_are_compressed_once(heavy: Saves) -> None:
    again = heavy.results["save-big-again"][HEAVY]
    assert again["changed"], again
    # Two small images and the big one, which the second archive did not need.
    assert int(heavy.results["count-big"][HEAVY]["stdout"]) == 3
