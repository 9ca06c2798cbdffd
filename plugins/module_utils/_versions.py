# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tags in the order in which somebody looks for one: newest version first. Pure: no I/O.

Tags follow no specification. What publishers have in common: numbers with dots, perhaps after a
`v`, then perhaps a mark of a pre-release (as Semantic Versioning, section 9, and PEP 440 have
them), then perhaps a variant, as `-alpine`. Unlike in Semantic Versioning a suffix is a pre-release
only where its word says so: `16-alpine` is no version before 16.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

RELEASE, PRERELEASE, OTHER = "release", "prerelease", "other"

_VERSION = re.compile(r"[vV]?(\d+(?:\.\d+)*)(?=\Z|[-_.]|[a-z]+\d*(?:\Z|[-_.]))", re.ASCII)
# From the first to the last step before a release; of one rank where publishers mean the same.
_RANKS = {
    "nightly": 0,
    "snapshot": 0,
    "canary": 0,
    "dev": 0,
    "alpha": 1,
    "a": 1,
    "beta": 2,
    "b": 2,
    "milestone": 3,
    "m": 3,
    "preview": 4,
    "pre": 4,
    "rc": 5,
}
_PRERELEASE = re.compile(
    r"[-_.]?(nightly|snapshot|canary|dev|alpha|a|beta|b|milestone|m|preview|pre|rc)"
    r"(?:[-_.]?(\d+(?:\.\d+)*))?(?=\Z|[-_.])",
    re.ASCII | re.IGNORECASE,
)
# A single letter is a mark only with a number: 1.0b2, but not the variant of 1.0-b.
_LETTERS = {"a", "b", "m"}
# From this many digits on, the first number is a date or a build, and says nothing about versions.
_LONGEST_NUMBER = 5
_TOKENS = re.compile(r"(\d+)", re.ASCII)

_Tokens = tuple[tuple[int, str], ...]
_Key = tuple[int, tuple[int, ...], tuple[int, ...], _Tokens, str]


@dataclass(frozen=True)
class _Version:
    """`numbers` are empty for a tag that is no version; `rest` is what follows version and mark."""

    numbers: tuple[int, ...]
    mark: tuple[int, ...]
    rest: str


def newest_first(tags: Iterable[str]) -> list[str]:
    """The tags, each once: newer versions before older ones, tags that are no versions last.

    Of one version: the release, its variants by name, then what came before the release. A shorter
    number, as `16`, stands behind `16.2`: it is the same one, or an older one. Numbers in variants
    count too, higher ones first.
    """
    return sorted(set(tags), key=_key)


def kind_of(tag: str) -> str:
    """`release`, `prerelease`, or `other` for a tag that is no version."""
    version = _parse(tag)
    if not version.numbers:
        return OTHER
    return PRERELEASE if version.mark else RELEASE


def _parse(tag: str) -> _Version:
    found = _VERSION.match(tag)
    if not found or len(found[1].partition(".")[0]) > _LONGEST_NUMBER:
        return _Version((), (), tag)
    rest = tag[found.end() :]
    mark = _PRERELEASE.match(rest)
    if mark and not (mark[1].lower() in _LETTERS and mark[2] is None):
        steps = (_RANKS[mark[1].lower()], *_numbers(mark[2] or "0"))
        return _Version(_numbers(found[1]), steps, rest[mark.end() :])
    if rest[:1].isalpha():
        return _Version((), (), tag)  # As 3f2a9c1, which is a commit.
    return _Version(_numbers(found[1]), (), rest)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _key(tag: str) -> _Key:
    """For ascending order: numbers are negative, and end with 1, so that shorter is later."""
    version = _parse(tag)
    numbers = (*(-number for number in version.numbers), 1)
    # A release (no mark) is before its pre-releases.
    mark = (1, *(-number for number in version.mark), 1) if version.mark else (0,)
    return (not version.numbers, numbers, mark, _tokens(version.rest), tag)


def _tokens(text: str) -> _Tokens:
    """A text by its words, ascending, and its numbers, descending."""
    parts = _TOKENS.split(text.lower())
    return tuple((-int(part), "") if part.isdigit() else (1, part) for part in parts if part)
