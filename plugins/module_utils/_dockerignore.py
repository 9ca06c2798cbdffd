# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which files of a build context go to the builder: the patterns of .dockerignore. Pure: no I/O.

https://docs.docker.com/build/concepts/context/#dockerignore-files; the matching is that of
https://github.com/moby/patternmatcher as a builder walks: the last pattern that matches a path, or
a directory that it lies in, decides.
"""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

# A class as Go's filepath.Match has it, and each of its members.
_CLASS = re.compile(r"\[(\^|(?!\^))((?:(?:\\.|[^\\\]-])(?:-(?:\\.|[^\\\]-]))?)+)\]", re.DOTALL)
_MEMBER = re.compile(r"\\(.)|[^-]", re.DOTALL)
_SIGNS = frozenset("*?[]\\")


class InvalidPattern(ValueError):
    """A line of .dockerignore that is no pattern; the message says which."""


@dataclass(frozen=True)
class Ignore:
    """The patterns of one .dockerignore, in their order: (expression, whether it takes back in).

    `heads`: for each that takes back, the directories that its paths lie in, '' for any.
    """

    patterns: tuple[tuple[re.Pattern[str], bool], ...] = ()
    heads: tuple[str, ...] = ()
    _directories: dict[str, tuple[bool, ...]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def takes_back(self, directory: str) -> bool:
        """Whether something in a directory may go in although the directory stays out."""
        inside = f"{directory}/"
        return any(
            not head or f"{head}/".startswith(inside) or inside.startswith(f"{head}/")
            for head in self.heads
        )

    def leaves_out(self, path: str) -> bool:
        """Whether this path, relative to the context and with slashes, stays out."""
        return self._walk(path)[0]

    def _walk(self, path: str) -> tuple[bool, tuple[bool, ...]]:
        """Whether a path stays out, and which patterns matched it, as the builder walks to it.

        A pattern that could not change the answer is not tried, and then does not hold for what
        lies below either: `x*`, `!xa/k`, `xa` let xa/k in (MatchesUsingParentResults).
        """
        directory = path.rpartition("/")[0]
        above: Sequence[bool] = ()
        if directory:
            if directory not in self._directories:
                self._directories[directory] = self._walk(directory)[1]
            above = self._directories[directory]
        out, matched = False, []
        for number, (expression, back) in enumerate(self.patterns):
            matches = bool(above) and above[number]
            if not matches and back == out:
                matches = expression.match(path) is not None
            matched.append(matches)
            if matches:
                out = not back
        return out, tuple(matched)


def parse(text: str) -> Ignore:
    """The patterns of a .dockerignore; raises InvalidPattern."""
    found: list[tuple[re.Pattern[str], bool]] = []
    heads = []
    for line in _wanted(text.removeprefix("\ufeff").split("\n")):
        back = line.startswith("!")
        pattern = _cleaned(line, line[1:].strip() if back else line)
        found.append((_compiled(line, pattern), back))
        if back:
            heads.append(_head(pattern))
    return Ignore(tuple(found), tuple(heads))


def _wanted(lines: Iterable[str]) -> Iterable[str]:
    """Comments begin in the first column; what is left of a line counts without its blanks."""
    for line in lines:
        if not line.startswith("#") and line.strip():
            yield line.strip()


def _cleaned(line: str, text: str) -> str:
    if not text:
        raise InvalidPattern(f".dockerignore: {line!r} takes back nothing; write a pattern after !")
    pattern = posixpath.normpath(text)
    return pattern.lstrip("/") if len(pattern) > 1 else pattern


def _compiled(line: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(rf"{_expression(pattern)}\Z", re.DOTALL)
    except (re.error, ValueError) as error:
        raise InvalidPattern(
            f".dockerignore: {line!r} is no pattern ({error}); correct it"
        ) from error


def _head(pattern: str) -> str:
    """The directories, or the whole path, before the first sign of a pattern."""
    parts = pattern.split("/")
    plain = itertools.takewhile(lambda part: not _SIGNS.intersection(part), parts)
    return "/".join(plain)


def _expression(pattern: str) -> str:
    """The regular expression of a pattern: Go's filepath.Match, and `**` for any directories."""
    if pattern.startswith("**") and not _SIGNS.intersection(pattern[2:]):
        # Any path that ends so; with a slash, whole names only.
        slash = pattern.startswith("/", 2)
        return ("(?:.*/)?" if slash else ".*") + re.escape(pattern[2 + slash :])
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        if pattern.startswith("**", at):
            at += 3 if pattern.startswith("/", at + 2) else 2
            parts.append("(?:.*/)?" if at < len(pattern) else ".*")
        elif pattern[at] == "[":
            match = _CLASS.match(pattern, at)
            if match is None:
                raise ValueError(f"no class of characters begins at {pattern[at:]!r}")
            members = _MEMBER.sub(lambda one: re.escape(one[1] or one[0]), match[2])
            parts.append(f"[{match[1]}{members}]")
            at = match.end()
        elif pattern[at] == "\\":
            if at + 1 == len(pattern):
                raise ValueError("nothing stands after its last backslash")
            parts.append(re.escape(pattern[at + 1]))
            at += 2
        else:
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(pattern[at], re.escape(pattern[at])))
            at += 1
    return "".join(parts)
