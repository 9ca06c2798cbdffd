# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The images that a compose file names, read without a YAML library, which hosts lack. Pure.

This is no parser of YAML: it looks for the key `image` wherever it stands. Where it errs, it finds
more than compose would, since what is found here is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils._amounts import PolicyError
from ansible_collections.fleet.images.plugins.module_utils._patterns import pattern
from ansible_collections.fleet.images.plugins.module_utils._reference import DEFAULT_TAG

_NOTHING: Mapping[str, str] = MappingProxyType({})
# `image:` as a key of a block, of a list's entry, or between braces; quoted or not.
_KEY = re.compile(
    r"""(?:^\s*(?:[-?]\s+)*|[{,]\s*)(?P<quote>["']?)image(?P=quote)\s*:(?=["'\s]|$)"""
)
_BLOCK = re.compile(r"[|>][-+0-9]*\Z")
_PROPERTIES = re.compile(r"\A\s*(?:[&!]\S*\s+)+")  # anchors and tags before a value
_ALIAS = re.compile(r"\*([^\s,}\]]+)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_DEFAULT = re.compile(r"(:?[-?+])(.*)\Z", re.DOTALL)
_UNKNOWN = "*"


def compose_images(text: str, variables: Mapping[str, str] = _NOTHING) -> list[str]:
    """Patterns (`_patterns.pattern`) of the images that a compose file names, in its order.

    `text`: YAML or JSON. `${VAR}`, `$VAR` and `${VAR:-default}` are filled from `variables` or
    their default; what is not known becomes `*`, which keeps rather too much; `$$` is a dollar.
    As for compose, a name without tag and digest means `:latest`, so that no pattern here means
    all tags of a repository by accident. A value that can be no image is left out, and so is what
    a service without `image` builds: compose names that after the project. Raises nothing.
    """
    found = []
    for value in _values(text):
        made = _completed(_filled(value, variables).strip())
        if made:
            found.append(made)
    return list(dict.fromkeys(found))


def _completed(name: str) -> str:
    """The pattern of a name with its variables filled in; '' where that can name no image."""
    last = name.rpartition("/")[2]
    if _UNKNOWN in name and not (_UNKNOWN in last or ":" in last):
        # An unknown part of the last component could hold the tag; elsewhere it cannot.
        name = f"{name}:{DEFAULT_TAG}"
    try:
        known = pattern(name).wanted
    except PolicyError:
        return ""
    # Digits may be an ID, and that has no tag.
    return name if known.digits or known.reference is None else str(known.reference)


def _values(text: str) -> Iterator[str]:
    """What stands at the keys `image`, with variables."""
    try:
        yield from _of_json(json.loads(text))
        return
    except (ValueError, RecursionError):
        pass
    lines = [_uncommented(line) for line in text.splitlines()]
    for number, line in enumerate(lines):
        for key in _KEY.finditer(line):
            value = _PROPERTIES.sub("", line[key.end() :] + " ").strip()
            if not value or _BLOCK.match(value):
                value = _below(lines, number)
            alias = _ALIAS.match(value)
            value = _anchored(alias[1], lines) if alias else _scalar(value)
            if value:
                yield value


def _of_json(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inside in value.items():
            if key == "image" and isinstance(inside, str):
                yield inside
            yield from _of_json(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from _of_json(inside)


def _uncommented(line: str) -> str:
    """A line without its comment; a quote opens only where a value may begin."""
    quote, before = "", " "
    for place, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote and before != "\\" else quote
        elif letter in "\"'" and before in " \t[{,:(":
            quote = letter
        elif letter == "#" and before in " \t":
            return line[:place]
        before = letter
    return line


def _below(lines: Sequence[str], number: int) -> str:
    """What stands on the next line that is not empty, where this is deeper than its key."""
    depth = _depth(lines[number])
    below = next((line for line in lines[number + 1 :] if line.strip()), "")
    return below.strip() if _depth(below) > depth else ""


def _depth(line: str) -> int:
    """The column of a line's first word, after the dashes of list entries."""
    return len(line) - len(line.lstrip(" -"))


def _anchored(name: str, lines: Sequence[str]) -> str:
    """The value that has this anchor, or what stands for any where it is not found."""
    mark = re.compile(rf"&{re.escape(name)}\s+(\S.*)")
    found = next(filter(None, map(mark.search, lines)), None)
    return _scalar(found[1].strip()) if found else _UNKNOWN


def _scalar(text: str) -> str:
    """The quoted or plain value at the beginning of a text; '' for a mapping or list."""
    if text[:1] in ("'", '"'):
        return text[1:].partition(text[0])[0]
    depth, end = 0, len(text)
    for place, letter in enumerate(text):
        opens = letter == "{" and text[place - 1 : place] == "$"
        closes = letter == "}" and depth > 0
        depth += opens - closes
        # Outside of ${...} these end a value between braces; no image's name holds them.
        if depth == 0 and not closes and letter in ",{}[] \t":
            end = place
            break
    return text[:end]


def _filled(text: str, variables: Mapping[str, str]) -> str:
    """A text with its variables filled in, those in defaults too."""
    made, place = [], 0
    while place < len(text):
        rest = text[place + 1 :]
        name = _NAME.match(rest)
        if text[place] != "$":
            made.append(text[place])
            place += 1
        elif rest.startswith("$"):
            made.append("$")
            place += 2
        elif rest.startswith("{"):
            inside = _braced(rest)
            made.append(_value(inside, variables))
            place += len(inside) + 3
        elif name:
            made.append(variables.get(name[0]) or _UNKNOWN)
            place += 1 + name.end()
        else:
            made.append(_UNKNOWN)
            place += 1
    return "".join(made)


def _braced(text: str) -> str:
    """What stands between the brace that begins a text and the one that closes it, or the end."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "{") - (letter == "}")
        if depth == 0:
            return text[1:place]
    return text[1:]


def _value(inside: str, variables: Mapping[str, str]) -> str:
    """What `${inside}` stands for: the variable, its default, or `*` where nobody knows.

    An empty variable without a default leaves no name that compose takes, so it counts as unknown.
    """
    name = _NAME.match(inside)
    rest = _DEFAULT.match(inside[name.end() :]) if name else None
    if name is None or (name.end() < len(inside) and rest is None):
        return _UNKNOWN
    known = variables.get(name[0])
    if rest is None or rest[1].endswith("?"):
        return known or _UNKNOWN
    if rest[1].endswith("+"):
        # Whether it is set where compose runs is not known here.
        return _filled(rest[2], variables) if known else _UNKNOWN
    if known or (known is not None and rest[1] == "-"):
        return known or _UNKNOWN
    return _filled(rest[2], variables)
