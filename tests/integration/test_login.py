# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role, TLS and a login: images get the site's names, and nobody sees the password."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from fleetlib.hosts import REGISTRY_CA, TLS_REGISTRY
from rig import AIRGAP, JUMP_HOST, NODES, Json, Rig, Run

USER, PASSWORD, WRONG = "shop", "s3cret-for-tests", "wr0ng-for-tests"
STAYS, CHANGES = NODES[0], NODES[-1]
BOTH = (STAYS, CHANGES)
TOOL = f"{TLS_REGISTRY}/shop/tool:2"
SITE_TOOL, STABLE_TOOL = "site.example:5000/web/tool:2", "site.example:5000/web/tool:stable"
# Where a bastion keeps what runs leave: not what the fleet was made of.
LEFT = ("/root", "/tmp", "/run", "/dev/shm", "/var/tmp", "/var/lib/fleet-images")


@pytest.fixture(scope="module")
def clean(rig: Rig) -> Iterator[Rig]:
    """No node has the tool, before and after."""

    def remove() -> None:
        for node in BOTH:
            rig.inside(node, "docker", "rmi", "--force", SITE_TOOL, STABLE_TOOL, check=False)

    remove()
    yield rig
    remove()


@contextmanager
def watched() -> Iterator[set[str]]:
    """The command lines of all processes meanwhile, of the fleet's hosts too."""
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    seen.add(path.read_text(errors="replace"))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def play(rig: Rig, names: dict[str, str], *flags: str, password: str = PASSWORD) -> Run:
    """A run for nodes that get the tool under these names; it tells all that Ansible can tell."""
    variables = {
        "airgap_registry_username": USER,
        "airgap_registry_password": password,
        "airgap_registry_validate_certs": True,
        "airgap_registry_ca_path": REGISTRY_CA,
    }
    hosts: dict[str, Json] = {
        node: {"fleet_images": [{"name": TOOL, "as": name}]} for node, name in names.items()
    }
    flags = ("--limit", ",".join(names), "-vvv", *flags)
    return rig.play(AIRGAP, variables, hosts=hosts, flags=flags)


def done(run: Run) -> dict[str, list[tuple[str, str]]]:
    """Host -> its images, each with what was done."""
    assert run.code == 0, run.output
    return {
        host: [(one["name"], one["action"]) for one in row["images"]]
        for host, row in run.rows.items()
    }


def table(run: Run) -> list[list[str]]:
    """The rows of the nodes, without their last column: check mode takes no seconds."""
    lines = run.table().splitlines()
    return [line.split()[:-1] for line in lines if line.startswith(BOTH)]


def test_wrong_login_is_refused(clean: Rig) -> None:
    before = clean.held(CHANGES)
    run = play(clean, {CHANGES: SITE_TOOL}, password=WRONG)
    reason = run.failed_with(CHANGES)
    assert reason.startswith(f"{TOOL}: {TLS_REGISTRY} refused access (status 401")
    assert "for the user 'shop'; check that name, its password and its rights" in reason
    assert WRONG not in run.output
    assert clean.held(CHANGES) == before


def test_right_login_and_no_word_of_it(clean: Rig) -> None:
    # Tests of modules give the login to their tasks.
    earlier = set(clean.work.rglob("*"))
    before = clean.held_by_all(BOTH)
    foreseen = play(clean, dict.fromkeys(BOTH, SITE_TOOL), "--check")
    assert foreseen.code == 0, foreseen.output
    assert clean.held_by_all(BOTH) == before
    with watched() as processes:
        run = play(clean, dict.fromkeys(BOTH, SITE_TOOL))
    assert done(run) == {node: [(SITE_TOOL, "loaded")] for node in BOTH}
    assert table(run) == table(foreseen)
    assert len(table(run)) == len(BOTH)
    assert all(SITE_TOOL in clean.names(node) for node in BOTH)
    assert all(TOOL not in clean.names(node) for node in BOTH)

    assert PASSWORD not in foreseen.output + run.output
    assert any("ansible-playbook" in line for line in processes)
    assert any(line.startswith("/usr/bin/python3") for line in processes)
    assert not any(PASSWORD in line for line in processes)
    assert clean.inside(JUMP_HOST, "grep", "-rlF", "imageLayoutVersion", *LEFT, check=False)
    assert clean.inside(JUMP_HOST, "grep", "-rlF", PASSWORD, *LEFT, check=False) == ""
    left = set(clean.work.rglob("*")) - earlier
    told = [path for path in left if path.is_file() and _has_password(path)]
    assert {path.name for path in told} == {"extra.json"}


def test_another_name_is_a_tag_and_no_byte(clean: Rig) -> None:
    run = play(clean, {STAYS: SITE_TOOL, CHANGES: STABLE_TOOL})
    assert done(run) == {STAYS: [(SITE_TOOL, "none")], CHANGES: [(STABLE_TOOL, "loaded")]}
    assert [run.rows[node]["changed"] for node in BOTH] == [False, True]
    assert run.rows[CHANGES]["bytes_sent"] < 20_000
    shown = clean.inside(
        CHANGES, "docker", "inspect", "--format", "{{.Id}}", SITE_TOOL, STABLE_TOOL
    )
    assert len(set(shown.split())) == 1


def _has_password(path: Path) -> bool:
    return PASSWORD.encode() in path.read_bytes()
