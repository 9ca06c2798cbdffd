# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be pulled, decided from what an Engine lists."""

from __future__ import annotations

from typing import Any

import pytest
from images import AMD64, ARM64, digest, locked

from ansible_collections.fleet.images.plugins.module_utils._holdings import (
    CLASSIC,
    CONTAINERD,
    Holdings,
)
from ansible_collections.fleet.images.plugins.module_utils._lock import LockError
from ansible_collections.fleet.images.plugins.module_utils._pull_plan import (
    decide,
    digests,
    having,
    keeps_digest,
    through,
    wanted,
)
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    InvalidReference,
    parse,
    parse_images,
)

A, B = digest("a"), digest("b")
ID, OTHER = digest("image"), digest("other image")
APP = "docker.io/library/app:1"


def want(item: Any, via: str = "", own: str = AMD64) -> Any:
    return wanted(parse_images([item])[0], None, via, own)


@pytest.mark.parametrize(
    ("item", "via", "source", "here"),
    [
        ("app:1", "", APP, APP),
        (f"app:1@{A}", "", f"docker.io/library/app@{A}", APP),
        (f"app@{A}", "", f"docker.io/library/app@{A}", f"docker.io/library/app@{A}"),
        ({"name": "app:1", "as": "site.example/x:2"}, "", APP, "site.example/x:2"),
        ("app:1", "m.example:5/hub/", "m.example:5/hub/library/app:1", APP),
        (f"r.example/app:1@{A}", "m.example", f"m.example/app@{A}", "r.example/app:1"),
        ("app:1", "127.0.0.1:5055", "127.0.0.1:5055/library/app:1", APP),
    ],
)
def test_what_is_pulled_and_how_it_is_named(item: Any, via: str, source: str, here: str) -> None:
    found = want(item, via)
    assert (str(found.source), found.here) == (source, here)


def test_only_latest_without_a_digest_is_unpredictable() -> None:
    names = ["app", "app:latest", "app:1", f"app:latest@{A}", f"app@{A}"]
    assert [want(name).unpredictable for name in names] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("platforms", "own", "platform"),
    [
        ([], AMD64, ""),
        ([AMD64], AMD64, ""),
        ([AMD64, ARM64], AMD64, ""),
        (["linux/arm/v6"], "linux/arm/v7", ""),
        ([ARM64], AMD64, ARM64),
    ],
)
def test_platform_is_asked_for_where_it_is_another(
    platforms: list[str], own: str, platform: str
) -> None:
    assert want({"name": "app:1", "platforms": platforms}, own=own).platform == platform


def test_one_of_several_foreign_platforms_has_to_be_named() -> None:
    with pytest.raises(InvalidReference, match="name one platform"):
        want({"name": "app:1", "platforms": [ARM64, "linux/s390x"]})


def test_lock_and_list_agree_or_are_refused() -> None:
    image = locked("app:1", ["a"])
    spec = parse_images(["app:1"])[0]
    found = wanted(spec, image, "", AMD64)
    assert str(found.source) == f"docker.io/library/app@{image.target.digest}"
    assert found.here == APP
    with pytest.raises(LockError, match=f"wanted {A}, the lock has {image.target.digest}"):
        wanted(parse_images([f"app:1@{A}"])[0], image, "", AMD64)


@pytest.mark.parametrize("via", ["UPPER CASE", "m.example/Hub", "m.example:5000/hub:tag"])
def test_a_prefix_that_is_none_is_refused(via: str) -> None:
    with pytest.raises(InvalidReference):
        through(parse("app:1"), via)


def listed(tags: list[str], digests_: list[str], id_: str = ID) -> dict[str, Any]:
    return {"Id": id_, "RepoTags": tags, "RepoDigests": digests_}


def held(tags: dict[str, str], whole: set[str], store: str = CLASSIC) -> Holdings:
    return Holdings(store, AMD64, tags, frozenset(whole), frozenset(whole))


@pytest.mark.parametrize(
    ("item", "images", "tags", "whole", "state", "action"),
    [
        ("app:1", [], {}, set(), "missing", "pull"),
        ("app:1", [listed(["app:1"], [])], {APP: ID}, {ID}, "present", "none"),
        ("app:1", [listed(["app:1"], [])], {APP: ID}, set(), "missing", "pull"),
        (f"app:1@{A}", [listed(["app:1"], [f"app@{A}"])], {APP: ID}, {ID}, "present", "none"),
        (f"app:1@{A}", [listed(["app:1"], [f"app@{A}"])], {APP: ID}, set(), "stale", "pull"),
        (f"app:1@{A}", [listed(["app:1"], [f"app@{B}"])], {APP: ID}, {ID}, "stale", "pull"),
        (f"app:1@{A}", [listed(["app:2"], [f"app@{A}"])], {}, {ID}, "missing", "tag"),
        (
            f"app:1@{A}",
            [listed(["app:1"], [f"mirror/app@{A}"])],
            {APP: ID},
            {ID},
            "present",
            "none",
        ),
        (
            f"app:1@{A}",
            [listed(["app:1"], [f"app@{B}"], OTHER), listed([], [f"app@{A}"])],
            {APP: OTHER},
            {ID, OTHER},
            "stale",
            "tag",
        ),
        (f"app@{A}", [listed([], [f"app@{A}"])], {}, {ID}, "present", "none"),
        (f"app@{A}", [listed([], [f"mirror/app@{A}"])], {}, {ID}, "missing", "pull"),
    ],
)
def test_decisions(
    item: str,
    images: list[dict[str, Any]],
    tags: dict[str, str],
    whole: set[str],
    state: str,
    action: str,
) -> None:
    found = decide(want(item), images, held(tags, whole))
    assert (found.state, found.action) == (state, action), found.reason


def test_locked_decisions_name_the_bytes() -> None:
    image = locked("app:1", ["a", "b"])
    found = wanted(parse_images(["app:1"])[0], image, "", AMD64)
    lacking = decide(found, [], held({}, set()))
    assert (lacking.action, lacking.identity) == ("pull", image.on(AMD64).config.digest)
    assert lacking.bytes == sum(blob.size for blob in image.blobs(AMD64))
    assert decide(found, [], held({}, set(), CONTAINERD)).identity == image.target.digest
    there = held({}, {image.on(AMD64).config.digest})
    assert decide(found, [], there).action == "tag"


def test_an_engine_that_lists_nothing_as_none() -> None:
    """Engine 20.10."""
    odd = [listed(["<none>:<none>"], ["<none>@<none>"]), {"Id": OTHER, "RepoDigests": None}]
    assert digests(odd) == {}
    assert having(A, odd) == set()
    assert having(OTHER, odd) == {OTHER}


@pytest.mark.parametrize(
    ("via", "store", "kept"),
    [("", CLASSIC, True), ("", CONTAINERD, False), ("m.example", CLASSIC, False)],
)
def test_the_classic_store_remembers_a_digest_by_a_name(via: str, store: str, kept: bool) -> None:
    assert keeps_digest(want(f"r.example/app:1@{A}", via), store) is kept
