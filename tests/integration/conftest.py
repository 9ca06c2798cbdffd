# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the tests on the test fleet, which FLEET_NAME names and which must be up.

With `pytest -n 2 --dist loadfile` each worker has a fleet: the first that one, the next NAME-gw1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [
    str(HERE),
    str(HERE.parent / "fleet"),
    str(HERE.parent / "benchmarks"),
    str(HERE.parents[1] / ".venv" / "collections"),
]

if TYPE_CHECKING:
    from rig import Rig
    from workshop import Workshop


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs the fleet."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.fleet)


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    """The fleet, with every host running, and with the SDK."""
    from rig import Rig

    name, worker = (
        os.environ.get("FLEET_NAME", "test"),
        os.environ.get("PYTEST_XDIST_WORKER", "gw0"),
    )
    if worker != "gw0":
        name = f"{name}-{worker}"
    if not (HERE.parents[1] / ".fleet" / name / "inventory.yml").exists():
        pytest.fail(f"the fleet '{name}' is not up: run 'tests/fleet/fleet up --name {name}'")
    fleet = Rig(name, tmp_path_factory.mktemp("rig"))
    fleet.equip()
    return fleet


@pytest.fixture(scope="module")
def seeded(rig: Rig) -> Iterator[Rig]:
    """The fleet with version 1 of both services on every node, and nothing else."""
    rig.seed()
    yield rig


@pytest.fixture(scope="session")
def shop(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A store on the controller."""
    from workshop import fill

    return fill(rig, tmp_path_factory.mktemp("shop") / "store")
