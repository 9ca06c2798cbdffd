# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run at a time writes images into an Engine; who comes second waits, or is told who does."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rig import NEW_NGINX, NODES, Json, Rig
from workshop import LOCAL, Workshop

# As a node names its Engine's lock, whatever way the socket is spelled; hosts of the fleet have no
# /run/lock, which systemd makes.
LOCK = f"/tmp/fleet-images-{hashlib.sha256(b'/run/docker.sock').hexdigest()[:16]}.lock"
NODE = NODES[0]


@pytest.fixture
def busy(seeded: Rig) -> Iterator[Rig]:
    """Somebody else holds the lock of a node."""
    told = '{"what": "image_load", "user": "jo", "pid": 7, "at": 0}'
    hold = f"test ! -d /run/lock && echo '{told}' >{LOCK} || exit 1;"
    hold += f" setsid flock {LOCK} sleep 300 >/dev/null 2>&1 &"
    seeded.inside(NODE, "sh", "-c", hold)
    yield seeded
    seeded.inside(NODE, "sh", "-c", "pkill -f 'sleep 300'", check=False)


def test_who_writes_there_is_told(busy: Rig, shop: Workshop, tmp_path: Path) -> None:
    bundle = tmp_path / "nginx.tar"
    whole = {"path": str(bundle), "images": [NEW_NGINX]}
    busy.results("localhost", [shop.archive_task("archive", [whole])], LOCAL)
    before = busy.held(NODE)
    args = {"src": str(bundle), "lock": shop.lock_of(NEW_NGINX), "lock_timeout": 1}
    task = {"name": "load", "fleet.images.image_load": args}
    result = busy.results(NODE, [task])["load"][NODE]
    assert result["failed"] and not result["changed"]
    for words in ("unix:///var/run/docker.sock", "image_load of jo (process 7", "lock_timeout"):
        assert words in result["msg"]
    assert busy.held(NODE) == before


def test_the_second_of_two_loads_finds_the_images(
    seeded: Rig, shop: Workshop, tmp_path: Path
) -> None:
    """Both have seen that the image lacks, before either has written it."""
    bundle = tmp_path / "thin.tar"
    layers = shop.layers(NEW_NGINX)[-1:]
    thin = {"path": str(bundle), "images": [NEW_NGINX], "blobs": layers}
    seeded.results("localhost", [shop.archive_task("archive", [thin])], LOCAL)
    seeded.seed()
    args = {"src": str(bundle), "lock": shop.lock_of(NEW_NGINX), "planned": True}
    task = {"name": "load", "fleet.images.image_load": args}

    def load(after: float) -> dict[str, Json]:
        time.sleep(after)
        return seeded.results(",".join(NODES), [task])["load"]

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(load, (0.0, 0.2))
    for node in NODES:
        assert not one[node].get("failed") and not other[node].get("failed")
        assert one[node]["changed"] + other[node]["changed"] == 1
        assert NEW_NGINX in seeded.names(node)
