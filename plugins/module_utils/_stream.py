# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Engine's JSON stream: what a load, pull or push says while it works.

One JSON object after another, with `stream`, `status` and `progressDetail`, or `error`; the HTTP
status is 200 whatever happens. Loads of some Engines also tell of errors in plain `stream` text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

_ERROR_TEXT = re.compile(r"\berror\b|\bfailed to\b", re.IGNORECASE)
_LOADED_ID = re.compile(r"Loaded image ID: (sha256:[0-9a-f]{64})")
_LOADED = re.compile(r"Loaded image: (\S+)")
_MOST_TEXT = 2000
_LONGEST_LINE = 4 << 20


@dataclass
class Told:
    """What a stream told: loaded image IDs and names, and every text that tells of an error."""

    ids: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def error(self) -> str:
        """The Engine's own words about what went wrong; '' where it told of nothing."""
        return "; ".join(dict.fromkeys(self.errors))[:_MOST_TEXT]


def read(chunks: Iterable[bytes]) -> Told:
    """All that a stream tells, read to its end in constant memory."""
    told = Told()
    for message in messages(chunks):
        _take(told, message)
    return told


def messages(chunks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The JSON objects of a stream, wherever its pieces are cut.

    A line that is no JSON object is passed on as `{"error": …}`: no Engine sends one unless
    something broke.
    """
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield from _message(line)
        if len(rest) > _LONGEST_LINE:
            yield {"error": f"the Engine's stream has a line of more than {_LONGEST_LINE} bytes"}
            return
    yield from _message(rest)


def _message(line: bytes) -> Iterator[dict[str, Any]]:
    line = line.strip()
    decoder = json.JSONDecoder()
    text = line.decode("utf-8", "replace")
    # Old Engines put objects one behind the other without a newline.
    while text:
        try:
            found, end = decoder.raw_decode(text)
        except (ValueError, RecursionError):
            yield {"error": f"the Engine's stream holds no JSON: {text[:200]}"}
            return
        yield found if isinstance(found, dict) else {"error": str(found)}
        text = text[end:].lstrip()


def _take(told: Told, message: dict[str, Any]) -> None:
    detail = message.get("errorDetail") or {}
    error = message.get("error") or (detail.get("message") if isinstance(detail, dict) else "")
    if error:
        told.errors.append(str(error).strip())
        return
    text = str(message.get("stream") or message.get("status") or "")
    # An image may be called "error".
    if _ERROR_TEXT.search(_LOADED.sub("", text)):
        told.errors.append(text.strip())
    told.ids += _LOADED_ID.findall(text)
    told.names += _LOADED.findall(text)


@dataclass
class Pulled:
    """What the stream of a pull told.

    `digest`: of what was pulled, '' where it was not told. `error`: the Engine's own words. `bytes`
    of compressed layers that came, as far as the Engine tells: not of those whose transfer ended
    before it spoke of them.
    """

    digest: str = ""
    error: str = ""
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Bytes of all layers that came."""
        return sum(self.sizes.values())

    def take(self, message: dict[str, Any]) -> None:
        """Notes one message of the stream."""
        detail = message.get("errorDetail") or {}
        error = message.get("error") or (detail.get("message") if isinstance(detail, dict) else "")
        status = str(message.get("status") or "")
        self.error = self.error or str(error or "").strip()[:_MOST_TEXT]
        if status.startswith("Digest: "):
            self.digest = status[len("Digest: ") :].strip()
        elif status == "Downloading":
            progress = message.get("progressDetail") or {}
            size = progress.get("total") or progress.get("current") or 0
            layer = str(message.get("id", ""))
            self.sizes[layer] = max(self.sizes.get(layer, 0), int(size))
