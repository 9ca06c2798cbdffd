# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tags in the order in which somebody looks for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleet.images.plugins.module_utils._versions import kind_of, newest_first

TAGS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
NUMBERS = st.lists(st.integers(0, 99999), min_size=1, max_size=4)


@pytest.mark.parametrize(
    "ordered",
    [
        "1.10 1.9 1.2",
        "v2.0.0 v2.0.0-rc10 v2.0.0-rc2 v2.0.0-beta.1 v2.0.0-alpha v2.0.0-dev v1.9.9",
        "2.0.0 2.0.0b2 2.0.0b1 2.0.0a9",
        "16.2 16.2-alpine 16.2-alpine3.20 16.2-alpine3.19 16.1 16 16-alpine",
        "16-bookworm 15-alpine latest",
        "8.3 8.3-rc 8.3-rc-alpine 8.2",
        "1.2.3 1.2.3-r10 1.2.3-r9",
        "3.19 20240329 20231219",
        "1.0.0 1.0 1 v0.9",
        "0.1 bookworm-20240202 bookworm-20240101 edge latest",
        "1.0 1.0-b 0.9-rc.1",
        "10 9 3f2a9c1 abc",
        "2024.2 2024.1 7",
    ],
)
def test_order(ordered: str) -> None:
    tags = ordered.split()
    assert newest_first(reversed(tags)) == tags
    assert newest_first(tags * 2) == tags


@pytest.mark.parametrize(
    ("kind", "tags"),
    [
        ("release", "1 v1.2 16-alpine 1.2.3-debian-12-r5 1.0-b 2024.01.15 V3"),
        ("prerelease", "v2.0.0-rc1 2.0.0b1 1.0-SNAPSHOT 8.3-rc-alpine 1.0.0-alpha.beta 9.9.9.dev3"),
        ("other", "latest stable 3f2a9c1 20240101 sha256-1a.sig bookworm 1234567 version1 _"),
    ],
)
def test_kinds(kind: str, tags: str) -> None:
    assert {tag: kind_of(tag) for tag in tags.split()} == dict.fromkeys(tags.split(), kind)


@given(st.lists(TAGS))
def test_any_tags_have_one_order(tags: list[str]) -> None:
    ordered = newest_first(tags)
    assert sorted(ordered) == sorted(set(tags))
    assert newest_first(reversed(ordered)) == ordered
    kinds = [kind_of(tag) == "other" for tag in ordered]
    assert kinds == sorted(kinds)


@given(NUMBERS, NUMBERS)
def test_numbers_are_compared_as_numbers(one: list[int], other: list[int]) -> None:
    texts = {".".join(map(str, numbers)): numbers for numbers in (one, other)}
    assert newest_first(texts) == sorted(texts, key=texts.__getitem__, reverse=True)


@given(NUMBERS, st.integers(1, 99))
def test_a_release_is_newer_than_what_came_before_it(numbers: list[int], candidate: int) -> None:
    release = ".".join(map(str, numbers))
    before = f"{release}-rc{candidate}"
    assert newest_first([before, f"{release}-alpine", release]) == [
        release,
        f"{release}-alpine",
        before,
    ]
