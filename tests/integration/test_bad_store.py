# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run over nodes of which one's image is damaged in the store, one's is for other machines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from rig import AIRGAP, JUMP_HOST, NEW_NGINX, NEW_POSTGRES, NODES, SEED, Rig, Run, State

DAMAGED, WELL, OTHER_PLATFORM = NODES[2:]
STORE = "/var/tmp/damaged-store"
# Turns over one bit in the middle of the topmost layer, as a bad disk does.
DAMAGE = f"""
import json, pathlib
blobs = pathlib.Path("{STORE}/blobs/sha256")
index = json.loads(pathlib.Path("{STORE}/index.json").read_text())
found = next(e for e in index["manifests"] if "nginx" in str(e.get("annotations")))
children = json.loads((blobs / found["digest"][7:]).read_text())["manifests"]
amd64 = next(c["digest"][7:] for c in children if c["platform"]["architecture"] == "amd64")
layer = json.loads((blobs / amd64).read_text())["layers"][-1]["digest"]
content = bytearray((blobs / layer[7:]).read_bytes())
content[len(content) // 2] ^= 1
(blobs / layer[7:]).write_bytes(content)
print(layer)
"""


@dataclass(frozen=True)
class Day:
    """The run, the layer that is damaged, and what nodes held before and after."""

    run: Run
    layer: str
    before: dict[str, State]
    after: dict[str, State]


@pytest.fixture(scope="module")
def day(seeded: Rig) -> Iterator[Day]:
    fetch = {
        "name": "fill",
        "fleet.images.image_fetch": {
            "images": [NEW_NGINX],
            "store": STORE,
            "registry_validate_certs": False,
        },
    }
    seeded.inside(JUMP_HOST, "rm", "-rf", STORE)
    seeded.results(JUMP_HOST, [fetch])
    layer = seeded.inside(JUMP_HOST, "python3", "-c", DAMAGE).strip()
    hosts = {
        DAMAGED: {"fleet_images": [NEW_NGINX]},
        OTHER_PLATFORM: {"fleet_images": [{"name": SEED[0], "platforms": ["linux/arm64"]}]},
        WELL: {"fleet_images": [NEW_POSTGRES]},
    }
    before = seeded.held_by_all(hosts)
    flags = ["--limit", ",".join(hosts)]
    run = seeded.play(AIRGAP, {"airgap_store": STORE}, hosts=hosts, flags=flags)
    yield Day(run, layer, before, seeded.held_by_all(hosts))
    seeded.inside(JUMP_HOST, "rm", "-rf", STORE)


def test_damaged_blob_is_fetched_again_in_the_same_run(day: Day) -> None:
    assert day.run.rows[DAMAGED]["done"]
    gained = {line.split()[0] for line in set(day.after[DAMAGED]) - set(day.before[DAMAGED])}
    assert {name.partition("@")[0] for name in gained} == {NEW_NGINX}
    assert day.layer in day.run.output
    assert "that was removed, fetch it anew" in day.run.output


def test_image_of_another_platform(day: Day) -> None:
    reason = day.run.failed_with(OTHER_PLATFORM)
    assert reason.startswith(f"{SEED[0]}: wanted for linux/amd64, the lock has linux/arm64; fetch")
    assert day.after[OTHER_PLATFORM] == day.before[OTHER_PLATFORM]


def test_other_node_is_done_all_the_same(day: Day) -> None:
    assert day.run.rows[WELL]["done"]
    gained = {line.split()[0] for line in set(day.after[WELL]) - set(day.before[WELL])}
    assert gained == {NEW_POSTGRES}
