# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Patterns on names: what they match, and what can match nothing."""

from __future__ import annotations

from typing import Any

import pytest
from stocked import sha

from ansible_collections.fleet.images.plugins.module_utils._amounts import PolicyError
from ansible_collections.fleet.images.plugins.module_utils._inventory import Image
from ansible_collections.fleet.images.plugins.module_utils._patterns import first, patterns

ID, PULLED = sha("one"), sha("pulled")
SHOP = "registry.example:5000/shop/app"
ONE = Image(
    ID, ("docker.io/library/nginx:1.27", f"{SHOP}:2"), (f"docker.io/team/web@{PULLED}",), "",
    None, 1, 0, {}, None,
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        # A name is what Docker takes it for, with all tags unless it has one.
        ("nginx", True),
        (" nginx ", True),
        ("library/nginx", True),
        ("docker.io/nginx", True),
        ("index.docker.io/library/nginx", True),
        ("nginx:1.27", True),
        ("docker.io/nginx:1.27", True),
        ("nginx:latest", False),
        ("nginx:1", False),
        ("ngin", False),
        ("team/web", True),
        ("team/web:latest", False),
        ("team", False),
        (f"team/web@{PULLED}", True),
        (f"team/web@{ID}", False),
        (f"nginx@{PULLED}", False),
        # A tag with a digest: either of the two.
        (f"team/web:7@{PULLED}", True),
        (f"nginx:1.27@{PULLED}", True),
        (f"nginx:1.28@{PULLED}", False),
        (SHOP, True),
        (f"{SHOP}:2", True),
        # Globs, as a name is written out or as Docker prints it.
        ("nginx*", True),
        ("docker.io/library/ngin?", True),
        ("docker.io/nginx*", True),
        ("index.docker.io/nginx:1.*", True),
        ("index.docker.io/team/*", True),
        ("docker.io/web*", False),
        ("library/ngin*", True),
        ("library/web*", False),
        ("*:1.[0-9]*", True),
        ("*:1.[!2]*", False),
        ("registry.example:5000/*", True),
        ("*/app", True),
        ("shop/*", False),
        (f"*@{PULLED}", True),
        ("*", True),
        # IDs
        (ID, True),
        (ID[7:19], True),
        (PULLED, True),
        ("0" * 12, False),
    ],
)
def test_what_matches(text: str, found: bool) -> None:
    assert first(patterns([text]), ONE) == (text.strip() if found else "")


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("docker.io/ngin*", "docker.io/ngin* docker.io/library/ngin*"),
        ("docker.io/team/*", "docker.io/team/*"),
        ("index.docker.io/team/*", "docker.io/team/*"),
        ("library/ngin*", "library/ngin* docker.io/library/ngin*"),
        ("registry.example*", "registry.example*"),
        ("[a-f]*", "[a-f]*"),
    ],
)
def test_what_a_glob_is_compared_with(text: str, texts: str) -> None:
    (found,) = patterns([text])
    assert found.glob and found.texts == tuple(texts.split())


def test_a_registry_in_brackets_is_no_glob() -> None:
    six = Image(ID, ("[::1]:5000/app:1",), (), "", None, 1, 0, {}, None)
    assert first(patterns(["[::1]:5000/app"]), six) == "[::1]:5000/app"
    assert first(patterns(["[::2]:5000/app"]), six) == ""


def test_the_first_that_matches_is_told() -> None:
    assert first(patterns(["no/*", "*/web", "nginx"]), ONE) == "*/web"
    assert first([], ONE) == ""


def test_a_nameless_image_matches_by_its_id_only() -> None:
    lost = Image(ID, (), (), "", None, 1, 0, {}, None)
    assert first(patterns(["*", "nginx"]), lost) == ""
    assert first(patterns(["*", ID[7:30]]), lost) == ID[7:30]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is an empty pattern"),
        ("  ", "is an empty pattern"),
        (None, "is an empty pattern"),
        (7, "is an empty pattern"),
        ("No Name", "is no pattern"),
        ("shop/App", "is no pattern"),
        ("shop:a:b", "is no pattern"),
        ("app@sha256:12", "is no pattern"),
        ("sha256:12", "is no pattern"),
        ("^shop/.*$", "that no name can match"),
        ("shop/.+*", "that no name can match"),
        ("shop/{app,web}*", "that no name can match"),
        ("(shop|team)/*", "that no name can match"),
        ("shop /*", "that no name can match"),
        ("shop\\*", "that no name can match"),
        ("shop/[ab", "that no name can match"),
        ("shop/*]", "that no name can match"),
    ],
)
def test_what_is_no_pattern(text: Any, said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        patterns(["nginx", text])
    message = str(caught.value)
    assert message.startswith(repr(text)) and said in message
    assert "wanted a name, as nginx" in message and "\n" not in message


def test_no_id_where_repositories_are_wanted() -> None:
    for text in (ID, ID[7:], ID[:19]):
        with pytest.raises(PolicyError, match="is an ID"):
            patterns([text], ids=False)
    (digits,) = patterns(["0123456789ab"], ids=False)
    assert digits.texts == ("docker.io/library/0123456789ab",)
