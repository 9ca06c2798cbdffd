# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a Dockerfile builds on: the images, and what else it takes from outside. Pure: no I/O.

https://docs.docker.com/reference/dockerfile/. Only what names something outside is understood here;
whether the rest is right, the builder says.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

SCRATCH = "scratch"
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*\Z")
_FLAG = re.compile(r"--([a-z][a-z0-9-]*)(?:=(.*))?\Z", re.DOTALL)
# A word as it is written, its quotes included, and one that begins a here-document.
_WORD = re.compile(r"""(?:\\.|"(?:\\.|[^"\\])*"|'[^']*'|[^\s"'\\])+""", re.DOTALL)
_HEREDOC = re.compile(r"\d*<<(-?)([^<]+)\Z", re.DOTALL)
_VARIABLE = re.compile(
    r"\$(?:(?P<bare>[A-Za-z_][A-Za-z0-9_]*)"
    r"|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<colon>:?)(?P<sign>[-+])(?P<word>[^{}]*))?\})"
)
_REMOTE = re.compile(r"(?:https?://|git://|git@|ssh://)")
_PINNED = re.compile(r"#[0-9a-f]{40}(?:[0-9a-f]{24})?(?::|\Z)")


class InvalidDockerfile(ValueError):
    """A Dockerfile that names what it builds on in a way that cannot be followed."""


@dataclass
class Stage:
    """One FROM and what follows it, variables not filled in.

    `images`: what COPY --from and RUN --mount=from name. `added`: what ADD takes without a
    checksum, which may change at any time where it is a URL. `values`: its ARGs and ENVs.
    """

    base: str
    name: str = ""
    platform: str = ""
    images: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    values: dict[str, str | None] = field(default_factory=dict)

    def remotes(self, known: Mapping[str, str], arguments: Mapping[str, str]) -> list[str]:
        """The URLs that ADD fetches; `known`: ARGs before the first FROM, and of platforms."""
        values: dict[str, str] = {}
        for name, value in self.values.items():
            given = arguments.get(name, known.get(name) if value is None else value)
            if given is not None:
                values[name] = fill(given, values)
        filled = (fill(one, {**known, **values}) for one in self.added)
        return [one for one in filled if _REMOTE.match(one) and not _PINNED.search(one)]


@dataclass
class Outside:
    """What some stages take from outside: `images` as written, variables filled in; `remotes`."""

    images: list[str] = field(default_factory=list)
    remotes: list[str] = field(default_factory=list)


@dataclass
class Dockerfile:
    """A Dockerfile: its frontend (`# syntax=`), the ARGs before the first FROM, its stages."""

    syntax: str = ""
    arguments: dict[str, str | None] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)

    def outside(
        self,
        target: str = "",
        arguments: Mapping[str, str] | None = None,
        platforms: Sequence[str] = (),
        native: str = "",
        contexts: Sequence[str] = (),
    ) -> Outside:
        """What the build of `target` (the last stage without one) takes from outside.

        `arguments`: build arguments. `platforms`: those that are built for, `native` the builder's.
        `contexts`: names that build contexts stand for, so that they are no images here.
        Raises InvalidDockerfile for a target that is no stage.
        """
        given = arguments or {}
        found: dict[str, None] = {}
        remotes: dict[str, None] = {}
        inside = {_familiar(one) for one in contexts}
        for platform in platforms or (native,):
            known = self._given(_platform_arguments(platform, native), given)
            for number in self._needed(target, known, inside):
                images, _stages = self._built_on(number, known, inside)
                found.update(dict.fromkeys(images))
                remotes.update(dict.fromkeys(self.stages[number].remotes(known, given)))
        syntax = given.get("BUILDKIT_SYNTAX", self.syntax).split(" ")[0]
        if syntax:
            found[syntax] = None
        return Outside(list(found), list(remotes))

    def bases(
        self,
        arguments: Mapping[str, str] | None = None,
        target: str = "",
        contexts: Sequence[str] = (),
    ) -> list[str]:
        """The images that the build of `target` builds on, by the names that it uses."""
        return self.outside(target, arguments, contexts=contexts).images

    def _given(self, platform: Mapping[str, str], arguments: Mapping[str, str]) -> dict[str, str]:
        """The ARGs before the first FROM, each with what is given for it, or its default."""
        known = dict(platform)
        for name, default in self.arguments.items():
            if name in arguments:
                known[name] = arguments[name]
            elif default is not None:
                known[name] = fill(default, known)
        return known

    def _built_on(
        self, number: int, known: Mapping[str, str], contexts: Collection[str]
    ) -> tuple[list[str], list[int]]:
        """The images and the stages that a stage builds on.

        FROM names a stage before it, `FROM alpine AS alpine` thus an image; COPY and RUN name any.
        """
        images: list[str] = []
        stages: list[int] = []
        stage = self.stages[number]
        written = [(stage.base, number), *((one, len(self.stages)) for one in stage.images)]
        for place, (text, end) in enumerate(written):
            name = fill(text, known)
            named = [n for n, one in enumerate(self.stages[:end]) if one.name == name.lower()]
            if not name or name == SCRATCH or _familiar(name) in contexts:
                continue
            if named:
                stages.append(named[-1])
            elif place and name.isdecimal() and int(name) < end:
                stages.append(int(name))
            else:
                images.append(name)
        return images, stages

    def _needed(
        self, target: str, known: Mapping[str, str], contexts: Collection[str]
    ) -> list[int]:
        """The numbers of the stages that the target needs, its own included.

        A context of a stage's name stands for the stage.
        """
        if not self.stages:
            raise InvalidDockerfile("the Dockerfile: wanted a FROM, there is none; write one")
        names = {stage.name: number for number, stage in enumerate(self.stages) if stage.name}
        last = len(self.stages) - 1
        pending = [self._number(target, names, last) if target else last]
        needed: set[int] = set()
        while pending:
            number = pending.pop()
            if number not in needed and _familiar(self.stages[number].name) not in contexts:
                needed.add(number)
                pending += self._built_on(number, known, contexts)[1]
        return sorted(needed)

    def _number(self, target: str, names: Mapping[str, int], last: int) -> int:
        if target.lower() in names:
            return names[target.lower()]
        if target.isdecimal() and int(target) <= last:
            return int(target)
        there = ", ".join(names) or "no stage with a name"
        raise InvalidDockerfile(
            f"target {target}: wanted as a stage of the Dockerfile, which has {there}; choose one"
        )


def parse(text: str) -> Dockerfile:
    """A Dockerfile, as far as it names what lies outside of it."""
    lines = [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]
    directives, body = _directives(lines)
    found = Dockerfile(directives.get("syntax", "").split(" ")[0])
    for instruction, rest in _instructions(body, directives.get("escape", "\\")):
        if instruction == "ARG" and not found.stages:
            found.arguments.update(_pairs(rest))
        elif instruction == "FROM":
            found.stages.append(_stage(rest))
        elif found.stages:
            _note(found.stages[-1], instruction, rest)
    return found


def fill(text: str, known: Mapping[str, str]) -> str:
    """The text with its variables filled in, those that nobody knows with nothing."""

    def value(match: re.Match[str]) -> str:
        name = match["bare"] or match["name"]
        given = known.get(name)
        there = bool(given) if match["colon"] else given is not None
        if match["sign"] == "-":
            return str(given) if there else fill(match["word"], known)
        if match["sign"] == "+":
            return fill(match["word"], known) if there else ""
        return given or ""

    # The innermost come first: ${A:-b${C}}.
    for _depth in range(max(1, text.count("${"))):
        text = _VARIABLE.sub(value, text)
    return text


def _directives(lines: list[str]) -> tuple[dict[str, str], list[str]]:
    """The parser directives, which stand before everything else, and the other lines."""
    found: dict[str, str] = {}
    rest = list(lines)
    while rest and (match := _DIRECTIVE.match(rest[0].strip())):
        if match[1].lower() not in ("syntax", "escape", "check"):
            break
        found[match[1].lower()] = match[2]
        rest.pop(0)
    return found, rest


def _instructions(lines: list[str], escape: str) -> Iterator[tuple[str, str]]:
    """Each instruction, in capitals, and its text on one line; here-documents are passed over."""
    going_on = re.compile(rf"(?<!{re.escape(escape)}){re.escape(escape)}[ \t]*\Z")
    at = 0
    while at < len(lines):
        line = lines[at].strip()
        at += 1
        if not line or line.startswith("#"):
            continue
        while at < len(lines) and going_on.search(line):
            more = lines[at]
            at += 1
            if more.strip() and not more.lstrip().startswith("#"):
                line = going_on.sub("", line) + more
        instruction, told = (*going_on.sub("", line).split(None, 1), "", "")[:2]
        if instruction.upper() in ("RUN", "COPY", "ADD", "ONBUILD"):
            at = _after_documents(told, lines, at)
        yield instruction.upper(), told.strip()


def _after_documents(told: str, lines: list[str], at: int) -> int:
    """Where the instructions go on after the here-documents of one of them."""
    for match in filter(None, map(_HEREDOC.match, _WORD.findall(told))):
        name = re.sub(r"[\\\"']", "", match[2])
        stripped = (line.lstrip("\t") if match[1] else line for line in lines[at:])
        end = next((number for number, line in enumerate(stripped, at + 1) if line == name), None)
        # One without an end the builder refuses.
        at = at if end is None else end
    return at


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text, posix=True)
    except ValueError:
        return text.split()


def _pairs(text: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for word in _words(text):
        name, equals, value = word.partition("=")
        found[name] = value if equals else None
    return found


def _flags(text: str) -> tuple[list[tuple[str, str]], list[str]]:
    """The flags in front of an instruction's words, and these words."""
    words = _words(text)
    flags = []
    while words and (match := _FLAG.match(words[0])):
        flags.append((match[1], match[2] or ""))
        words.pop(0)
    return flags, words


def _stage(text: str) -> Stage:
    flags, words = _flags(text)
    named = len(words) >= 3 and words[1].upper() == "AS"
    return Stage(
        base=words[0] if words else "",
        name=words[2].lower() if named else "",
        platform=dict(flags).get("platform", ""),
    )


def _note(stage: Stage, instruction: str, text: str) -> None:
    """What an instruction takes from outside of its stage."""
    if instruction in ("ARG", "ENV"):
        stage.values.update(_pairs(text))
        return
    flags, words = _flags(text)
    if instruction == "COPY":
        stage.images += [value for name, value in flags if name == "from"]
    elif instruction == "RUN":
        mounts = (value for name, value in flags if name == "mount")
        stage.images += [
            option[5:] for value in mounts for option in value.split(",") if option[:5] == "from="
        ]
    elif instruction == "ADD" and "checksum" not in dict(flags):
        stage.added += [word.strip("[],") for word in words[:-1]]


def _familiar(name: str) -> str:
    """An image's name as a build context has it: without what Docker adds."""
    short = name.lower().removesuffix(":latest")
    return short.removeprefix("docker.io/").removeprefix("library/")


def _platform_arguments(platform: str, native: str) -> dict[str, str]:
    """https://docs.docker.com/reference/dockerfile/#automatic-platform-args-in-the-global-scope."""
    found: dict[str, str] = {}
    for prefix, value in (("TARGET", platform), ("BUILD", native or platform)):
        os_name, architecture, variant = (*value.split("/"), "", "", "")[:3]
        found[f"{prefix}PLATFORM"] = value
        found[f"{prefix}OS"] = os_name
        found[f"{prefix}ARCH"] = architecture
        found[f"{prefix}VARIANT"] = variant
    return found
