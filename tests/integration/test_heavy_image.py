# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image of half a gigabyte: no module grows with it, and a transfer that broke goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rig import NEW_NGINX, NODES, Json, Rig, State
from workshop import BIG, LOCAL, WRAPPER, Workshop, measured, packed, peaks, peaks_on

from ansible_collections.fleet.images.plugins.module_utils._parts import PART_SIZE, cut

MOST_GROWTH = 64 << 20
NODE = NODES[-1]
STAGING = "/var/tmp/fleet-images"
PYTHON = "/var/tmp/measuring-python"


@dataclass(frozen=True)
class Heavy:
    """What the modules returned, and the most bytes of memory that each took."""

    size: int
    results: Json
    peaks: dict[str, int]
    before: State
    after: State


def load_task(name: str, bundle: Path, shop: Workshop, image: str) -> Json:
    args = {"src": str(bundle), "lock": shop.lock_of(image), "known": shop.known}
    return measured({"name": name, "fleet.images.image_load": args}, PYTHON)


def broken_transfer(rig: Rig, bundle: Path) -> None:
    """What a transfer leaves that broke in its second part, on the node."""
    parts, whole = cut([bundle])
    assert len(parts) > 3
    with bundle.open("rb") as file:
        right = file.read(parts[0].size)
        wrong = file.read(parts[1].size // 2)
    place = f"{STAGING}/{whole[:16]}"
    rig.inside(NODE, "mkdir", "-p", "-m", "700", STAGING, place)
    rig.put(NODE, packed({parts[0].name: right, parts[1].name: wrong}), place)


@pytest.fixture(scope="module")
def heavy(seeded: Rig, shop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Heavy]:
    work = tmp_path_factory.mktemp("heavy")
    small, big = work / "small.tar", work / "big.tar"
    thin = {"path": str(small), "images": [NEW_NGINX], "blobs": shop.layers(NEW_NGINX)[-1:]}
    whole = {"path": str(big), "images": [BIG]}
    python = seeded.work / "python"
    archives = [
        measured(shop.archive_task("archive-small", [thin]), python),
        measured(shop.archive_task("archive-big", [whole]), python),
    ]
    results = seeded.results("localhost", archives, LOCAL)
    seeded.put(
        NODE,
        packed({Path(PYTHON).name: WRAPPER.format(python="/usr/bin/python3").encode()}),
        "/var/tmp",
    )
    before = seeded.held(NODE)
    broken_transfer(seeded, big)
    loads = [
        load_task("load-small", small, shop, NEW_NGINX),
        load_task("load-big", big, shop, BIG),
    ]
    results.update(seeded.results(NODE, loads))
    seeded.inside(NODE, "sh", "-c", f"test ! -e {STAGING}")
    yield Heavy(
        big.stat().st_size,
        results,
        {**peaks(python), **peaks_on(seeded, NODE, PYTHON)},
        before,
        seeded.held(NODE),
    )
    seeded.inside(NODE, "sh", "-c", f"rm -f {PYTHON}*; docker rmi {BIG}")
    big.unlink()


def test_image_is_half_a_gigabyte(heavy: Heavy, shop: Workshop, seeded: Rig) -> None:
    size = seeded.inside(NODE, "docker", "image", "inspect", "--format", "{{.Size}}", BIG)
    assert heavy.size > 250_000_000
    assert int(size) > 250_000_000
    assert not any(r.get("failed") for one in heavy.results.values() for r in one.values())


@pytest.mark.parametrize("module", ["fetch", "archive", "load"])
def test_module_does_not_grow_with_the_image(heavy: Heavy, module: str) -> None:
    names = {"fetch": ("small", "big")}.get(module, (f"{module}-small", f"{module}-big"))
    small, big = (heavy.peaks[name] for name in names)
    assert small > 5_000_000
    assert big - small < MOST_GROWTH


def test_transfer_that_broke_goes_on(heavy: Heavy) -> None:
    result = heavy.results["load-big"][NODE]
    assert result["bytes_resumed"] == PART_SIZE
    assert result["bytes_sent"] == heavy.size - PART_SIZE
    assert {BIG} <= {line.split()[0] for line in set(heavy.after) - set(heavy.before)}
