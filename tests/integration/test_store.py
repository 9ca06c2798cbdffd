# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store that is kept small and whole, and one that is filled from an Engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import NEW_NGINX, NODES, SEED, STORES, Json, Rig
from workshop import AMD64, LOCAL, fetch_task

NGINX = SEED[0]
ENGINE = next(node for node in reversed(NODES) if STORES[node] == "classic")
MADE = "localhost:1/here/tool:1"  # where nobody answers
PLACE = "/var/tmp/engine-store"
# What is at the places of all blobs, to compare with later.
LOOK = "cd {store} && find . -type f ! -path './.leases/*' -exec sha256sum {{}} + | sort -k 2"
# Turns over the first bit of the largest blob, as a bad disk does, and names it.
SPOIL = """
import pathlib
blobs = [path for path in pathlib.Path("{store}/blobs/sha256").iterdir()]
largest = max(blobs, key=lambda path: path.stat().st_size)
with largest.open("r+b") as file:
    first = file.read(1)[0]
    file.seek(0)
    file.write(bytes([first ^ 1]))
print("sha256:" + largest.name)
"""


def look(name: str, store: Path) -> Json:
    return {"name": name, "ansible.builtin.shell": LOOK.format(store=store)}


def fetch(
    rig: Rig, name: str, store: Path, image: str, check: bool = False, **args: object
) -> Json:
    task = fetch_task(rig, name, store, [image])
    task["fleet.images.image_fetch"].update({"platform": AMD64, **args})
    return {**task, "check_mode": check, "diff": True}


@pytest.fixture(scope="module")
def kept(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Json:
    """An update of which the former version goes, and then a damaged blob; task -> result."""
    store = tmp_path_factory.mktemp("kept") / "store"
    spoil = {"argv": ["{{ ansible_python_interpreter }}", "-c", SPOIL.format(store=store)]}
    tasks = [
        fetch(rig, "old", store, NGINX, lease="first-run"),
        fetch(rig, "leased", store, NEW_NGINX, keep=[]),
        {
            "name": "end of the first run",
            "ansible.builtin.file": {"path": f"{store}/.leases/first-run", "state": "absent"},
        },
        look("before", store),
        fetch(rig, "foreseen", store, NEW_NGINX, True, keep=[]),
        look("after foreseen", store),
        fetch(rig, "cleared", store, NEW_NGINX, keep=[]),
        look("whole", store),
        {"name": "spoil", "ansible.builtin.command": spoil},
        fetch(rig, "unread", store, NEW_NGINX),
        fetch(rig, "found", store, NEW_NGINX, True, verify=True),
        fetch(rig, "mended", store, NEW_NGINX, verify=True),
        look("whole again", store),
    ]
    results = rig.results("localhost", tasks, LOCAL)
    found = {name: result["localhost"] for name, result in results.items()}
    assert [name for name, result in found.items() if result.get("failed")] == [], found
    return found


def test_what_nobody_needs_goes_and_a_lease_is_heeded(kept: Json) -> None:
    assert kept["leased"]["removed_blobs"] == 0
    assert kept["foreseen"]["removed_blobs"] == kept["cleared"]["removed_blobs"] > 0
    assert kept["foreseen"]["removed_bytes"] == kept["cleared"]["removed_bytes"] > 0
    assert kept["foreseen"]["diff"] == kept["cleared"]["diff"]
    assert kept["before"]["stdout"] == kept["after foreseen"]["stdout"]
    lines = [len(kept[name]["stdout_lines"]) for name in ("before", "whole")]
    assert lines[0] - lines[1] >= kept["cleared"]["removed_blobs"]


def test_what_former_images_had_is_still_known(kept: Json) -> None:
    """Engines with the containerd store have the former version's base: it is not sent again."""
    (old,) = kept["old"]["lock"]["images"][NGINX]["platforms"].values()
    known = {entry["digest"]: entry["blobs"] for entry in kept["cleared"]["known"]}
    assert known[old["manifest"]["digest"]]


def test_a_damaged_blob_is_found_and_mended(kept: Json) -> None:
    spoilt = kept["spoil"]["stdout"]
    assert not kept["unread"]["changed"]
    for name in ("found", "mended"):
        (image,) = kept[name]["images"]
        assert kept[name]["changed"]
        assert image["reason"] == f"damaged in the store: {spoilt}"
    assert kept["found"]["bytes_fetched"] == kept["mended"]["bytes_fetched"] > 0
    assert kept["whole"]["stdout"] == kept["whole again"]["stdout"]


@pytest.fixture(scope="module")
def taken(rig: Rig) -> Iterator[Json]:
    """An image that was made on a node, and that no registry has; task -> result."""

    def take(name: str, source: str, check: bool = False, **args: object) -> Json:
        options = {"images": [MADE], "store": PLACE, "source": source, "retries": 0, **args}
        return {"name": name, "fleet.images.image_fetch": options, "check_mode": check}

    rig.inside(ENGINE, "rm", "-rf", PLACE)
    rig.inside(ENGINE, "sh", "-c", f"tar --create /etc/hostname | docker import - {MADE}")
    tasks = [
        take("foreseen", "daemon", True),
        take("first", "daemon"),
        take("pinned", "daemon", lock="{{ result_of_first.lock }}"),
        take("auto", "auto"),
    ]
    results = rig.results(ENGINE, tasks)
    yield {name: result[ENGINE] for name, result in results.items()}
    rig.inside(ENGINE, "rm", "-rf", PLACE)
    rig.inside(ENGINE, "docker", "rmi", "--force", MADE)


def test_an_image_comes_from_the_engine(rig: Rig, taken: Json) -> None:
    first, foreseen = taken["first"], taken["foreseen"]
    (image,) = first["images"]
    assert (image["action"], image["source"]) == ("fetched", "daemon")
    held = rig.inside(ENGINE, "docker", "image", "inspect", "--format", "{{.Id}}", MADE)
    assert image["id"] == held.strip()
    assert foreseen["changed"] and foreseen["lock"] == first["lock"]
    assert foreseen["bytes_fetched"] == first["bytes_fetched"] > 0


@pytest.mark.parametrize("name", ["pinned", "auto"])
def test_it_does_not_come_twice(taken: Json, name: str) -> None:
    again = taken[name]
    assert not again.get("failed") and not again["changed"], again
    assert again["bytes_fetched"] == 0 and again["lock"] == taken["first"]["lock"]
    assert [image["source"] for image in again["images"]] == ["daemon"]
