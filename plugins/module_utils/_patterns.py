# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Patterns on the names of images, and those that a compose file makes. Pure: no I/O.

A pattern that protects must never miss for a reason that its writer cannot see. So what can match
nothing is refused, and a name means what Docker takes it for, however it is spelled.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ansible_collections.fleet.images.plugins.module_utils import _inventory
from ansible_collections.fleet.images.plugins.module_utils._amounts import PolicyError
from ansible_collections.fleet.images.plugins.module_utils._inventory import Image, Wanted
from ansible_collections.fleet.images.plugins.module_utils._reference import InvalidReference

# What no reference holds, and no glob needs: spaces, and the signs of regular expressions and of
# the shell's braces. `fnmatch` would look for them and find nothing.
_FOREIGN = re.compile(r"[^A-Za-z0-9._/:@*?\[\]!-]")
_SET = re.compile(r"\[!?\]?[^\[\]]*\]")
_WANTED = "wanted a name, as nginx or registry.example/shop/app:1, or a glob with *, ? and [...]"
_HUB, _HUB_ALIAS, _LIBRARY = "docker.io/", "index.docker.io/", "library/"


@dataclass(frozen=True)
class Pattern:
    """A pattern, ready to be compared. `texts`: spellings of a name, any of which matches."""

    text: str
    texts: tuple[str, ...]
    glob: bool
    wanted: Wanted

    def matches(self, spelled: Collection[str]) -> bool:
        """Whether it names one of these `_inventory.spellings`."""
        if self.glob:
            return any(fnmatchcase(one, text) for text in self.texts for one in spelled)
        return any(text in spelled for text in self.texts)


def pattern(text: str, ids: bool = True) -> Pattern:
    """The pattern that a user's text means; raises PolicyError for one that can match nothing.

    A name without tag and digest means all tags of that repository, one with a tag this tag, one
    with tag and digest both. A glob is compared with names as they are written out and as Docker
    prints them, with and without tag or digest; `*` matches slashes and colons too. `ids`: the
    first 12 or more digits of an ID are allowed as well.
    """
    words = text.strip() if isinstance(text, str) else ""
    if not words:
        raise PolicyError(f"{text!r} is an empty pattern; {_WANTED}")
    try:
        wanted = _inventory.wanted(words)
    except InvalidReference as error:
        raise PolicyError(f"{text!r} is no pattern; {_WANTED}") from error
    reference = wanted.reference
    if reference is not None:
        name = reference.name
        tags = [f"{name}:{reference.tag}"] if reference.tag and not wanted.any_tag else []
        digests = [f"{name}@{reference.digest}"] if reference.digest else []
        return Pattern(words, (*tags, *digests) or (name,), False, wanted)
    if wanted.digits:
        if not ids:
            raise PolicyError(f"{text!r} is an ID; {_WANTED}")
        return Pattern(words, (), False, wanted)
    if _FOREIGN.search(words) or re.search(r"[\[\]]", _SET.sub("", words)):
        raise PolicyError(f"{text!r} is a pattern that no name can match; {_WANTED}")
    return Pattern(words, _globs(words), True, wanted)


def _globs(text: str) -> tuple[str, ...]:
    """The glob, and what it means where it begins neither as Docker prints names nor in full."""
    if text.startswith(_HUB_ALIAS):
        text = _HUB + text[len(_HUB_ALIAS) :]
    if text.startswith(_LIBRARY):
        return text, _HUB + text
    rest = text[len(_HUB) :]
    if text.startswith(_HUB) and "/" not in rest:
        return text, f"{_HUB}{_LIBRARY}{rest}"
    return (text,)


def patterns(texts: Iterable[str], ids: bool = True) -> list[Pattern]:
    """The patterns of these texts; raises PolicyError."""
    return [pattern(text, ids) for text in texts]


def first(among: Sequence[Pattern], image: Image) -> str:
    """The text of the first pattern that names the image, by a name or by its ID; '' for none."""
    spelled = _inventory.spellings((*image.references, *image.digests))
    found = (one.text for one in among if one.matches(spelled) or one.wanted.identified(image))
    return next(found, "")
