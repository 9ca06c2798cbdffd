# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies as users write them: what they mean, and what is none."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.fleet.images.plugins.module_utils._amounts import PolicyError
from ansible_collections.fleet.images.plugins.module_utils._policy import Policy, policy

DAY = 86400


def test_nothing_said() -> None:
    default = Policy("dangling", (), None, None, None, None, "version", (), ())
    assert policy({}) == Policy() == default
    assert policy(dict.fromkeys(vars(default))) == default
    assert policy({"docker_host": "tcp://x", "repositories": [], "protect": ()}) == default


def test_everything_said() -> None:
    said = {
        "scope": "unused",
        "repositories": ["registry.example/shop/*", " nginx "],
        "built_before": "100d",
        "tagged_before": "2w",
        "unused_for": "1d12h",
        "keep_last": 3,
        "keep_last_by": "time",
        "protect": ["*:stable", "0123456789ab", f"sha256:{'ab' * 32}"],
        "protect_labels": ["keep", "team=shop", "why=a=b", "empty="],
    }
    assert policy(said) == Policy(
        scope="unused",
        repositories=("registry.example/shop/*", "nginx"),
        built_before=100 * DAY,
        tagged_before=14 * DAY,
        unused_for=36 * 3600,
        keep_last=3,
        keep_last_by="time",
        protect=("*:stable", "0123456789ab", f"sha256:{'ab' * 32}"),
        protect_labels=("keep", "team=shop", "why=a=b", "empty="),
    )
    assert policy({"keep_last": 0}).keep_last == 0


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("scope", "all", "'all' is unknown; wanted dangling or unused"),
        ("scope", "", "'' is unknown"),
        ("keep_last_by", "date", "'date' is unknown; wanted version or time"),
        ("built_before", "14", "'14' has no unit"),
        ("tagged_before", "14x", "'14x' is no duration"),
        ("unused_for", "", "'' is no duration"),
        ("keep_last", -1, "-1 is no count; wanted a whole number from 0 on"),
        ("keep_last", True, "True is no count"),
        ("keep_last", "3", "'3' is no count"),
        ("repositories", ["shop/*", ""], "'' is no text"),
        ("repositories", "shop/*", "'shop/*' is no list"),
        ("repositories", [f"sha256:{'ab' * 32}"], "is an ID"),
        ("repositories", ["^shop"], "'^shop' is no pattern"),
        ("protect", ["  "], "'  ' is no text"),
        ("protect", [None], "None is no text"),
        ("protect", ["No Good"], "'No Good' is no pattern"),
        ("protect", ["(a|b)*"], "no name can match"),
        ("protect_labels", ["=x"], "'=x' has no key"),
        ("protect_labels", [""], "'' is no text"),
        ("protect_labels", {"keep": 1}, "is no list"),
    ],
)
def test_what_is_no_policy(name: str, value: Any, said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        policy({name: value})
    message = str(caught.value)
    assert message.startswith(f"{name}: ") and said in message and "\n" not in message
