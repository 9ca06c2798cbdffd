# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry that wants a login: none, a wrong one, the right one; no output has a password."""

from __future__ import annotations

import pytest
from rig import AIRGAP, LOCKED_REGISTRY, NODES, Rig, Run

USER, PASSWORD, WRONG = "shop", "s3cret-for-tests", "wr0ng-for-tests"
NODE = NODES[-1]
IMAGE = f"{LOCKED_REGISTRY}/shop/nginx:2"


def play(rig: Rig, **login: str) -> Run:
    """A run for one node that tells all that Ansible can tell."""
    variables = {"fleet_images": [IMAGE], **login}
    return rig.play(AIRGAP, variables, flags=["--limit", NODE, "-vvv"])


WRONG_LOGIN = {"airgap_registry_username": USER, "airgap_registry_password": WRONG}


@pytest.mark.parametrize(
    ("login", "found", "next_step"),
    [
        pytest.param({}, "without a login", "give registry_username and", id="none"),
        pytest.param(WRONG_LOGIN, "for the user 'shop'", "check that name, its pass", id="wrong"),
    ],
)
def test_login_is_refused(seeded: Rig, login: dict[str, str], found: str, next_step: str) -> None:
    before = seeded.held(NODE)
    run = play(seeded, **login)
    reason = run.failed_with(NODE)
    assert reason.startswith(f"{IMAGE}: {LOCKED_REGISTRY} refused access (status 401")
    assert found in reason
    assert next_step in reason
    assert WRONG not in run.output
    assert seeded.held(NODE) == before


def test_right_login_and_no_word_of_it(seeded: Rig) -> None:
    run = play(seeded, airgap_registry_username=USER, airgap_registry_password=PASSWORD)
    assert run.code == 0, run.output
    assert list(run.rows) == [NODE]
    assert IMAGE in seeded.names(NODE)
    assert PASSWORD not in run.output
