# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a build tells while it runs: its steps, which were cached, and which one failed. Pure.

`docker buildx build --progress rawjson` writes a SolveStatus per line
(https://github.com/moby/buildkit/blob/master/client/graph.go); between them and at the end stand
the words of buildx itself.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any

# `[linux/amd64->arm64 stage  2/10] RUN …`: what it runs on, and what it is for where that differs.
_STEP = re.compile(
    r"\[(?:(?P<os>[a-z0-9]+)/(?P<own>[a-z0-9_]+(?:/v[0-9]+)?)(?:->(?P<for>\S+))? )?"
    r"(?:[^\s\]]+ )? *\d+/\d+\] (?P<what>.*)",
    re.DOTALL,
)
_LINES = 20
_LONGEST_LINE = 1000
_CANCELED = ("context canceled", "operation was canceled")


@dataclass
class Step:
    """One step: what it does, for which platform ('' for the only one), and its last lines.

    `is_instruction`: whether the Dockerfile asks for it; the others are buildx's own, as an export.
    """

    name: str
    platform: str = ""
    is_instruction: bool = False
    is_cached: bool = False
    error: str = ""
    is_running: bool = False
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES))

    def as_result(self) -> dict[str, Any]:
        """The step as the module returns it."""
        return {"name": self.name, "platform": self.platform, "lines": list(self.lines)}


class Progress:
    """Reads the lines as they come, in constant memory."""

    def __init__(self) -> None:
        self._steps: dict[str, Step] = {}
        self._rest: dict[str, bytes] = {}
        self.words: deque[str] = deque(maxlen=_LINES * 2)

    def feed(self, line: bytes) -> None:
        """Takes one line of the output."""
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        try:
            told = json.loads(text) if text.startswith("{") else None
        except ValueError:
            told = None
        if not isinstance(told, dict):
            if text.strip():
                self.words.append(text[:_LONGEST_LINE])
            return
        for vertex in told.get("vertexes") or ():
            self._vertex(vertex)
        for log in told.get("logs") or ():
            self._log(str(log.get("vertex")), str(log.get("data") or ""))

    def _vertex(self, vertex: dict[str, Any]) -> None:
        name = str(vertex.get("name") or "")
        step = self._steps.get(str(vertex.get("digest")))
        if step is None:
            match = _STEP.match(name)
            step = Step(match["what"] if match else name)
            step.is_instruction = match is not None
            step.platform = _platform(match) if match else ""
            self._steps[str(vertex.get("digest"))] = step
        step.is_cached = step.is_cached or bool(vertex.get("cached"))
        step.is_running = bool(vertex.get("started")) and not vertex.get("completed")
        step.error = step.error or str(vertex.get("error") or "")

    def _log(self, vertex: str, data: str) -> None:
        step = self._steps.get(vertex)
        if step is None:
            return
        try:
            content = base64.b64decode(data)
        except (binascii.Error, ValueError):
            return
        lines = (self._rest.pop(vertex, b"") + content).split(b"\n")
        self._rest[vertex] = lines.pop()[: 4 * _LONGEST_LINE]
        step.lines.extend(map(_line, lines))

    @property
    def instructions(self) -> list[Step]:
        """The steps that the Dockerfile asks for, one per platform."""
        return [step for step in self._steps.values() if step.is_instruction]

    @property
    def running(self) -> list[str]:
        """The names of the steps that have begun and not ended."""
        return [step.name for step in self._steps.values() if step.is_running]

    @property
    def cached(self) -> int:
        """How many of these were not run, since their result was there."""
        return sum(step.is_cached for step in self.instructions)

    @property
    def failed(self) -> Step | None:
        """The step that failed, not one that was called off for it; None where none did."""
        for digest, step in self._steps.items():
            if step.error and not any(one in step.error for one in _CANCELED):
                if rest := self._rest.pop(digest, b""):
                    step.lines.append(_line(rest))
                return step
        return None

    @property
    def error(self) -> str:
        """What buildx said at its end, without the word ERROR in front; '' for nothing."""
        for line in reversed(self.words):
            if line.startswith("ERROR: "):
                text = line[len("ERROR: ") :]
                for prefix in ("failed to build: ", "failed to solve: "):
                    text = text.removeprefix(prefix)
                return text
        return self.words[-1].strip() if self.words else ""


def _line(content: bytes) -> str:
    return content.decode("utf-8", "replace").rstrip("\r")[:_LONGEST_LINE]


def _platform(match: re.Match[str]) -> str:
    """The platform that a step is for, '' where buildx names none."""
    if not match["os"]:
        return ""
    wanted = match["for"] or match["own"]
    is_whole = match["for"] and not re.match(r"[a-z0-9_]+(?:/v[0-9]+)?\Z", wanted)
    return str(wanted) if is_whole else f"{match['os']}/{wanted}"
