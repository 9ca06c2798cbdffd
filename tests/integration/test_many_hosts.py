# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run says to a host, and hears from it, does not grow with the number of hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from benchlib.many import GROUPS, plan

if TYPE_CHECKING:
    from benchlib.many import ManyRun

FEW, MANY = 5, 35  # the report names every host up to 30 of them
SLACK = 16  # bytes: numbers get longer


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> ManyRun:
    return plan(FEW, tmp_path_factory.mktemp("few"))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> ManyRun:
    return plan(MANY, tmp_path_factory.mktemp("many"))


def test_every_host_is_planned(few: ManyRun, many: ManyRun) -> None:
    for run in (few, many):
        assert run.code == 0, run.output
        assert len(run.locked) == run.hosts
        assert f"all {run.hosts} " in run.output


def test_lock_that_travels_names_only_the_images_of_its_host(many: ManyRun) -> None:
    for host, images in many.locked.items():
        group = int(host[-4:]) % GROUPS
        assert len(images) == 2
        assert {image.rpartition(":")[2] for image in images} == {f"group{group}"}


def test_no_argument_grows(few: ManyRun, many: ManyRun) -> None:
    assert set(few.sizes) == set(many.sizes)
    grown = {
        task: (few.sizes[task].arguments, size.arguments)
        for task, size in many.sizes.items()
        if size.arguments > few.sizes[task].arguments + SLACK
    }
    assert grown == {}


def test_no_result_grows(few: ManyRun, many: ManyRun) -> None:
    grown = {
        task: (few.sizes[task].result, size.result)
        for task, size in many.sizes.items()
        if size.result > few.sizes[task].result + SLACK
    }
    assert grown == {}
