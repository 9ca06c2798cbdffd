# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the role airgap that choose the source, what comes along, and what stays."""

from __future__ import annotations

from rig import AIRGAP, JUMP_HOST, REGISTRY, SEED, Rig

TOOL = [f"{REGISTRY}/shop/tool:{version}" for version in "12"]
NODES = ("engine20-classic", "engine28-containerd")
LIMIT = ["--limit", ",".join(NODES)]
SOURCE = "engine28-classic"
STORE = "/var/tmp/option-store"


def test_the_store_is_cleaned_and_attestations_come_along(seeded: Rig) -> None:
    seeded.inside(JUMP_HOST, "rm", "-rf", STORE)
    layers = f"find {STORE}/blobs -type f -size +100k | wc -l"
    counts = []
    for image in TOOL:
        wanted = {
            "fleet_images": [image],
            "airgap_store": STORE,
            "airgap_attestations": True,
            "airgap_clean_store": True,
        }
        run = seeded.play(AIRGAP, wanted, flags=LIMIT)
        assert run.code == 0, run.output
        assert [run.rows[node]["loaded"] for node in NODES] == [1, 1]
        counts.append(int(seeded.inside(JUMP_HOST, "sh", "-c", layers)))
    # Only the Engine with the containerd store has a place for attestations.
    classic, containerd = (run.rows[node]["bytes_sent"] for node in NODES)
    assert containerd > classic
    assert counts[0] == counts[1] > 0
    names = seeded.inside(JUMP_HOST, "cat", f"{STORE}/index.json")
    assert "shop/tool:2" in names and "shop/tool:1" not in names
    assert seeded.inside(JUMP_HOST, "sh", "-c", f"ls -A {STORE}/.leases") == ""
    seeded.inside(JUMP_HOST, "rm", "-rf", STORE)


def test_images_of_the_bastions_own_engine(seeded: Rig) -> None:
    """One that no registry has; what is foreseen is what comes."""
    name = "site.example/own/nginx:1"
    seeded.inside(SOURCE, "docker", "tag", SEED[0], name)
    wanted = {"fleet_images": [name], "fleet_bastion": SOURCE, "airgap_source": "auto"}
    run = seeded.play(AIRGAP, {**wanted, "airgap_fetch_retries": 0}, flags=LIMIT)
    seeded.inside(SOURCE, "docker", "rmi", name)
    assert run.code == 0, run.output
    for node in NODES:
        assert (run.rows[node]["source"], run.rows[node]["loaded"]) == ("daemon", 1)
        assert name in seeded.names(node)
    seeded.inside(SOURCE, "rm", "-rf", "/var/lib/fleet-images")
