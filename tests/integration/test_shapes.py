# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives that others wrote: each Engine's own docker save, an OCI archive, compressed, split."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rig import NODES, REGISTRY, Json, Rig
from workshop import AMD64, ARM64, LOCAL, fetch_task

TOOLS = [f"{REGISTRY}/shop/tool:1", f"{REGISTRY}/shop/tool:2"]
TARGETS = ["engine20-classic", "engine26-containerd", "engine28-containerd"]
HERE = "/var/tmp/shapes"
# The images' own words, and then they are gone again.
RUN = "&& ".join(f"docker run --rm --network none {tool} " for tool in TOOLS)
CLEAN = f"docker rmi --force {' '.join(TOOLS)} >&2"
ON_HOST = [*NODES, "oci"]
ON_CONTROLLER = ["compressed", "split"]
CASES = [*ON_HOST, *ON_CONTROLLER]
THOROUGH = ["engine20-classic", "engine28-containerd", "oci", "compressed"]


@dataclass(frozen=True)
class Loads:
    """The archives on the controller by case, and what each load gave by task and host."""

    archives: dict[str, Path]
    results: Json


def fetch(rig: Rig, work: Path) -> Path:
    """Both versions for two platforms in a store, and a bundle of them for the nodes."""
    images: list[str | Json] = [{"name": one, "platforms": [AMD64, ARM64]} for one in TOOLS]
    lock = "{{ result_of_fetch.lock }}"
    args = {"store": f"{work}/store", "lock": lock, "path": f"{work}/bundle.tar"}
    tasks = [
        fetch_task(rig, "fetch", work / "store", images),
        {"name": "archive", "fleet.images.image_archive": {**args, "platform": AMD64}},
    ]
    tasks[0]["fleet.images.image_fetch"]["attestations"] = True
    done = rig.results("localhost", tasks, LOCAL)
    assert not any(result["localhost"].get("failed") for result in done.values()), done
    return work / "bundle.tar"


def save_everywhere(rig: Rig, bundle: Path, work: Path) -> dict[str, Path]:
    """What `docker save` of every Engine writes of both images, which are then removed."""
    load = {"name": "load", "fleet.images.image_load": {"src": str(bundle)}}
    line = f"mkdir -p {HERE} && docker save -o {HERE}/saved.tar {' '.join(TOOLS)} && {CLEAN}"
    save = {"name": "save", "ansible.builtin.command": {"argv": ["sh", "-c", line]}}
    done = rig.results("nodes", [load, save])
    assert all(done["save"][node]["rc"] == 0 for node in NODES), done
    for node in NODES:
        place = f"{rig.container(node)}:{HERE}/saved.tar"
        rig.engine.docker("cp", place, str(work / f"{node}.tar"))
    return {node: work / f"{node}.tar" for node in NODES}


def others(work: Path, saved: dict[str, Path]) -> dict[str, Path]:
    """An OCI archive of two platforms, the old shape compressed, and the new one split."""
    with tarfile.open(work / "oci.tar", "w") as tar:
        for name in ("oci-layout", "index.json", "blobs"):
            tar.add(work / "store" / name, name)
    compressed, split = work / "compressed.tar.gz", work / "split.tar"
    compressed.write_bytes(gzip.compress(saved["engine20-classic"].read_bytes(), 1))
    content = saved["engine28-classic"].read_bytes()
    sums = ""
    for number, start in enumerate(range(0, len(content), 1_000_000), start=1):
        part = split.with_name(f"split.tar.part{number:03d}")
        part.write_bytes(content[start : start + 1_000_000])
        sums += f"{hashlib.sha256(part.read_bytes()).hexdigest()}  {part.name}\n"
    split.with_name("split.tar.sha256").write_text(sums)
    return {"oci": work / "oci.tar", "compressed": compressed, "split": split}


def tasks_of(case: str, archives: dict[str, Path]) -> list[Json]:
    """Load, run and remove; one case of each shape is foreseen and repeated too."""
    args: Json = {"src": str(archives[case])}
    if case in ON_HOST:
        args = {"src": f"{HERE}/{case}.tar", "remote_src": True}
    load = {"fleet.images.image_load": args}
    run = {"argv": ["sh", "-c", f"{RUN}; {CLEAN}"]}
    tasks: list[Json] = [
        {"name": f"load {case}", **load},
        {"name": f"run {case}", "ansible.builtin.command": run},
    ]
    if case in THOROUGH:
        tasks.insert(0, {"name": f"foresee {case}", "check_mode": True, **load})
        tasks.insert(2, {"name": f"repeat {case}", **load})
    return tasks


@pytest.fixture(scope="module")
def loads(seeded: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loads]:
    work = tmp_path_factory.mktemp("shapes")
    saved = save_everywhere(seeded, fetch(seeded, work), work)
    archives = {**saved, **others(work, saved)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for case in ON_HOST:
            tar.add(archives[case], f"{case}.tar")
    for target in TARGETS:
        seeded.put(target, buffer.getvalue(), HERE)
    tasks = [task for case in CASES for task in tasks_of(case, archives)]
    yield Loads(archives, seeded.results(":".join(TARGETS), tasks))
    for node in NODES:
        seeded.inside(node, "rm", "-rf", HERE)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("target", TARGETS)
def test_it_loads_and_runs(loads: Loads, target: str, case: str) -> None:
    loaded, ran = (loads.results[f"{step} {case}"][target] for step in ("load", "run"))
    assert not loaded.get("failed"), loaded
    assert loaded["changed"]
    assert [(one["name"], one["action"]) for one in loaded["images"]] == [
        (one, "loaded") for one in TOOLS
    ]
    assert ran["stdout_lines"][::2] == ["shop tool version 1", "shop tool version 2"]


@pytest.mark.parametrize("case", THOROUGH)
@pytest.mark.parametrize("target", TARGETS)
def test_it_is_foreseen_and_done_once(loads: Loads, target: str, case: str) -> None:
    foreseen, loaded, again = (
        loads.results[f"{step} {case}"][target] for step in ("foresee", "load", "repeat")
    )
    named = [
        [(one["name"], one["id"], one["action"]) for one in result["images"]]
        for result in (foreseen, loaded)
    ]
    assert named[0] == named[1]
    assert (foreseen["changed"], foreseen["bytes"]) == (True, loaded["bytes"])
    assert not again["changed"], again


def test_the_shapes_are_what_they_should_be(loads: Loads) -> None:
    """Engines from 25 on write an OCI index, older ones do not, and others write only that."""
    found = {}
    for case in [*NODES, "oci"]:
        with tarfile.open(loads.archives[case]) as tar:
            names = tar.getnames()
        found[case] = "manifest.json" in names, "index.json" in names
    old, new = (True, False), (True, True)
    shapes = dict.fromkeys(NODES, new)
    assert found == {**shapes, "engine20-classic": old, "oci": (False, True)}


def test_a_compressed_archive_travels_as_it_is(loads: Loads) -> None:
    small = loads.archives["compressed"].stat().st_size
    assert small < loads.archives["engine20-classic"].stat().st_size
    for target in TARGETS:
        assert loads.results["load compressed"][target]["bytes_sent"] == small
        assert loads.results["foresee compressed"][target]["bytes_sent"] == small


def test_parts_that_are_wrong_are_refused(seeded: Rig, loads: Loads) -> None:
    """One that differs from its checksum, and one that is not there; on the controller."""
    split = loads.archives["split"]
    second = split.with_name("split.tar.part002")
    before = seeded.held(TARGETS[0])
    content = second.read_bytes()
    second.write_bytes(content[::-1])
    task = {"name": "load", "fleet.images.image_load": {"src": str(split)}}
    wrong = seeded.results(TARGETS[0], [task])["load"][TARGETS[0]]
    second.unlink()
    missing = seeded.results(TARGETS[0], [task])["load"][TARGETS[0]]
    second.write_bytes(content)
    assert f"{second}: wanted SHA-256" in wrong["msg"]
    assert f"{second}: this part of a split archive is wanted" in missing["msg"]
    assert wrong["failed"] and missing["failed"]
    assert seeded.held(TARGETS[0]) == before


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_left_behind(seeded: Rig, loads: Loads, target: str) -> None:
    # The scenario matrix keeps its own directory there.
    there = seeded.inside(target, "sh", "-c", "ls -A /var/tmp").split()
    assert set(there) - {"matrix"} == {"shapes"}
    assert sorted(seeded.names(target)) == sorted(
        [f"{REGISTRY}/shop/nginx:1", f"{REGISTRY}/shop/postgres:1"]
    )
