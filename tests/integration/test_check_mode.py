# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode of the whole role on hosts that never met it: the truth, and not a file left."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rig import AIRGAP, NODES, OTHER_BASTION, SEED, Rig

Json = dict[str, Any]
FRESH = [NODES[0], NODES[-1]]
HOSTS = [*FRESH, OTHER_BASTION]
PLACES = "/usr/local ~root /home /tmp /var/tmp /var/lib/fleet-images"
# Directories that Ansible makes for itself; what lies in them counts.
ANSIBLES = "~root/.ansible ~root/.ansible/tmp"


def files(rig: Rig, host: str) -> list[str]:
    """All that lies where this collection or Ansible puts files: path, kind, bytes."""
    skip = " ".join(f"! -path {path}" for path in ANSIBLES.split())
    line = f"find {PLACES} -mindepth 1 {skip} -printf '%p %y %s\\n' 2>/dev/null"
    found = rig.inside(host, "sh", "-c", f"{line} || true").splitlines()
    # A directory's own size tells how many names it once had.
    return sorted(one.rpartition(" ")[0] if " d " in one else one for one in found)


def airgap(rig: Rig, variables: Json, *flags: str) -> dict[str, Json]:
    """The role on the fresh hosts; what it says of each, in check mode as well."""
    place = rig.work / f"check-{len(list(rig.work.iterdir()))}"
    place.mkdir()
    note = {
        "ansible.builtin.copy": {
            "content": "{{ airgap_result | to_json }}",
            "dest": f"{place}/{{{{ inventory_hostname }}}}",
            "mode": "0600",
        },
        "check_mode": False,
        "delegate_to": "localhost",
        "vars": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
    }
    plays = [
        {"ansible.builtin.import_playbook": AIRGAP},
        {"hosts": ",".join(FRESH), "gather_facts": False, "tasks": [note]},
    ]
    run = rig.play(plays, variables, flags=flags)
    assert run.code == 0, run.output
    return {path.name: json.loads(path.read_text()) for path in place.iterdir()}


def outcome(result: Json) -> Json:
    """What check mode has to foresee of a host, but for the bytes."""
    images = [[one[key] for key in ("name", "id", "digest", "action")] for one in result["images"]]
    counts = ("done", "present", "loaded", "failed", "bundle", "bytes_saved_plainly")
    return {"images": sorted(images), **{key: result[key] for key in counts}}


def bytes_sent(results: dict[str, Json]) -> dict[str, int]:
    """Per host the bytes of its bundle."""
    return {host: result["bytes_sent"] for host, result in results.items()}


@pytest.fixture
def fresh(rig: Rig, tmp_path: Path) -> Json:
    """Variables of a run over two nodes and a bastion without images, SDK or files of ours."""
    for host in HOSTS:
        rig.inside(host, "rm", "-rf", "/usr/local/lib/fleet-images", "/var/lib/fleet-images")
    for host in FRESH:
        rig.inside(host, "engine-reset")
    return {
        "fleet_nodes": ",".join(FRESH),
        "fleet_bastion": OTHER_BASTION,
        "fleet_images": SEED,
        "fleet_lock": str(tmp_path / "images.lock.json"),
        "airgap_controller_dir": str(tmp_path / "bundles"),
    }


def test_check_mode_foresees_the_run_and_leaves_nothing(
    rig: Rig, fresh: Json, tmp_path: Path
) -> None:
    before = {host: files(rig, host) for host in HOSTS}, rig.held_by_all(FRESH)
    foreseen = airgap(rig, fresh, "--check", "--diff")
    assert ({host: files(rig, host) for host in HOSTS}, rig.held_by_all(FRESH)) == before
    assert list(tmp_path.iterdir()) == []

    done = airgap(rig, fresh)
    assert all(files(rig, host) != before[0][host] for host in HOSTS)
    assert {host: set(SEED) for host in FRESH} == {host: rig.names(host) for host in FRESH}
    for host in FRESH:
        assert outcome(foreseen[host]) == outcome(done[host])
        assert done[host]["loaded"] == len(SEED)
    assert bytes_sent(foreseen) == bytes_sent(done)

    repeated = airgap(rig, fresh, "--check", "--diff")
    assert [one["present"] for one in repeated.values()] == [len(SEED)] * len(FRESH)
    assert set(bytes_sent(repeated).values()) == {0}
