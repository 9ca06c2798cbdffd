# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real image of two platforms: cut to one, whole in both, with its attestations and without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rig import NODES, REGISTRY, STORES, Json, Rig
from workshop import AMD64, ARM64, LOCAL, fetch_task, regions

OLD, NEW = f"{REGISTRY}/shop/tool:1", f"{REGISTRY}/shop/tool:2"
ARM = f"{REGISTRY}/shop/arm:1"
V6, V7, V8 = "linux/arm/v6", "linux/arm/v7", "linux/arm/v8"
CONTAINERD = [node for node in NODES if STORES[node] == "containerd"]


@dataclass(frozen=True)
class Fetched:
    """Results of the fetches on the controller by task, and the bundles that were made."""

    results: Json
    left: Path
    carried: Path

    def image(self, task: str, name: str) -> Json:
        """An image of a task's lock."""
        found: Json = self.results[task]["localhost"]["lock"]["images"][name]
        return found

    def attestations(self) -> list[str]:
        """The digests that the lock has of the attestations of the new image."""
        (one,) = self.image("carried", NEW)["platforms"].values()
        return [blob["digest"] for blob in one["attestations"]]


@pytest.fixture(scope="module")
def fetched(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Fetched:
    """The old version cut to amd64, the new one with its attestations, each in a bundle."""
    work = tmp_path_factory.mktemp("platforms")
    left, carried = work / "left.tar", work / "carried.tar"
    store = work / "store"
    both = {"name": NEW, "platforms": [AMD64, ARM64]}
    tasks = [
        fetch_task(rig, "left", store, [{"name": OLD, "platforms": [AMD64]}]),
        _archive("left", store, left),
        fetch_task(rig, "carried", store, [{"name": NEW, "platforms": [AMD64]}]),
        _archive("carried", store, carried),
        fetch_task(rig, "variants", work / "variants", [{"name": ARM, "platforms": [V6, V8]}]),
        fetch_task(rig, "both", work / "both", [both]),
    ]
    tasks[2]["fleet.images.image_fetch"]["attestations"] = True
    results = rig.results("localhost", tasks, LOCAL)
    failed = {name: found for name, found in results.items() if found["localhost"].get("failed")}
    assert failed == {}
    return Fetched(results, left, carried)


def _archive(name: str, store: Path, path: Path) -> Json:
    """Saves what the task of this name has fetched."""
    lock = f"{{{{ result_of_{name}.lock }}}}"
    args = {"store": str(store), "lock": lock, "path": str(path), "platform": AMD64}
    return {"name": f"save {name}", "fleet.images.image_archive": args}


@pytest.fixture(scope="module")
def loaded(seeded: Rig, fetched: Fetched) -> Iterator[Json]:
    """What loading both bundles gave on every node, and what ran there."""
    tasks = []
    for name, bundle, image in (
        ("left", fetched.left, OLD),
        ("carried", fetched.carried, NEW),
    ):
        lock = {"version": 1, "images": {image: fetched.image(name, image)}}
        args = {"src": str(bundle), "lock": lock}
        run = ["docker", "run", "--rm", "--network", "none", image]
        tasks += [
            {"name": f"load {name}", "fleet.images.image_load": args},
            {"name": f"run {name}", "ansible.builtin.command": {"argv": run}},
        ]
        again = {"name": "load again", "fleet.images.image_load": args}
    tasks.append(again)
    yield seeded.results("nodes", tasks)
    for node in NODES:
        seeded.inside(node, "docker", "rmi", "--force", OLD, NEW, check=False)


def test_only_the_wanted_platform_is_fetched(fetched: Fetched) -> None:
    cut, both = fetched.image("left", OLD), fetched.image("both", NEW)
    assert list(cut["platforms"]) == [AMD64]
    assert sorted(both["platforms"]) == [AMD64, ARM64]
    bytes_of = {
        task: fetched.results[task]["localhost"]["bytes_fetched"] for task in ("left", "both")
    }
    layers = [one["size"] for image in both["platforms"].values() for one in image["layers"]]
    assert bytes_of["both"] > sum(layers) > bytes_of["left"]
    assert "attestations" not in json.dumps(cut)


def test_variants_take_the_best_that_runs(fetched: Fetched) -> None:
    """The index has v6, v7 and arm64."""
    assert sorted(fetched.image("variants", ARM)["platforms"]) == [V6, V7]


@pytest.mark.parametrize("task", ["left", "carried"])
@pytest.mark.parametrize("node", NODES)
def test_it_loads_and_runs(loaded: Json, node: str, task: str) -> None:
    result = loaded[f"load {task}"][node]
    assert result["changed"] and not result.get("failed"), result
    version = "1" if task == "left" else "2"
    assert f"shop tool version {version}" in loaded[f"run {task}"][node]["stdout"]


@pytest.mark.parametrize("node", NODES)
def test_it_is_not_loaded_twice(loaded: Json, node: str) -> None:
    again = loaded["load again"][node]
    assert not again["changed"] and not again.get("failed"), again


@pytest.mark.parametrize("node", CONTAINERD)
def test_a_cut_index_keeps_its_digest(rig: Rig, fetched: Fetched, loaded: Json, node: str) -> None:
    for task, image in (("left", OLD), ("carried", NEW)):
        digest = fetched.image(task, image)["digest"]
        assert any(line.startswith(f"{image} {digest} ") for line in rig.held(node))


@pytest.mark.parametrize("node", CONTAINERD)
def test_attestations_go_along_where_they_are_carried(
    rig: Rig, fetched: Fetched, loaded: Json, node: str
) -> None:
    held = rig.inside(node, "ctr", "--namespace", "moby", "content", "list", "--quiet").split()
    assert len(fetched.attestations()) >= 3
    assert set(fetched.attestations()) <= set(held)
    # The other version's index names attestations too, and they are not there.
    index = json.loads(
        rig.inside(
            node,
            *("ctr", "--namespace", "moby", "content", "get", fetched.image("left", OLD)["digest"]),
        )
    )
    about = {
        entry["digest"]
        for entry in index["manifests"]
        if "vnd.docker.reference.digest" in entry.get("annotations", {})
    }
    assert about and not about & set(held)


def test_a_bundle_holds_just_what_is_wanted(fetched: Fetched) -> None:
    there = {f"sha256:{name[-64:]}" for name in regions(fetched.carried) if "blobs/" in name}
    assert set(fetched.attestations()) <= there
