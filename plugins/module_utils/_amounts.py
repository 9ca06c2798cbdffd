# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Durations and amounts of bytes as people write them, and durations as they read them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Union

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PARTS = re.compile(r"(?:\d{1,9}[smhdw]\s*)+", re.ASCII)
_PART = re.compile(r"(\d+)([smhdw])", re.ASCII)
_UNITS_OF_TIME = "s, m, h, d or w (seconds, minutes, hours, days, weeks)"

_BYTES = {"b": 1}
_BYTES.update((f"{letter}b", 1000**power) for power, letter in enumerate("kmgtp", 1))
_BYTES.update((f"{letter}ib", 1024**power) for power, letter in enumerate("kmgtp", 1))
# Digits are bounded, so that no text makes Python count for minutes.
_AMOUNT = re.compile(r"(\d{1,24}(?:\.\d{1,9})?)\s*([a-z]*)", re.ASCII | re.IGNORECASE)
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)\s*%", re.ASCII)
_UNITS_OF_BYTES = "B, kB, MB, GB, TB, PB (of 1000) or KiB, MiB, GiB, TiB, PiB (of 1024)"


class PolicyError(ValueError):
    """What a user wrote is no policy; the message says in one sentence what was wanted."""


@dataclass(frozen=True)
class Percent:
    """A part of something whose size is known later; `value` is above 0 and at most 100."""

    value: Decimal

    def of(self, total: int) -> int:
        """The part of `total` bytes, in whole bytes, rounded up so that it is at least the part."""
        part = (self.value * total / 100).to_integral_value(rounding=ROUND_CEILING)
        return int(part)

    def __str__(self) -> str:
        return f"{self.value}%"


Target = Union[int, Percent]


def duration(text: str | int) -> int:
    """Seconds of `90s`, `15m`, `36h`, `14d`, `2w`, or of several units, as `1d12h`, each once.

    Units are lower case, since `M` could be a month. Raises PolicyError for anything else; a bare
    number is refused, since nobody can tell its unit.
    """
    words = text.strip() if isinstance(text, str) else text
    parts = _PART.findall(words) if isinstance(words, str) and _PARTS.fullmatch(words) else []
    units = [unit for _number, unit in parts]
    if units and len(set(units)) == len(units):
        return sum(int(number) * _SECONDS[unit] for number, unit in parts)
    bare = str(words).isdigit()
    why = "has no unit" if bare else "is no duration"
    example = f"{words}d" if bare else "14d or 1d12h"
    raise PolicyError(
        f"{text!r} {why}; wanted whole numbers with a unit of {_UNITS_OF_TIME}, each once: write"
        f" {example}"
    )


def amount(text: str | int) -> int:
    """Bytes of `10GB`, `512MiB`, `1.5 GB`, or of a bare number, which is bytes already.

    Units in any case: kB and so on are decimal, KiB and so on binary; a fraction of a byte is left
    out. Raises PolicyError for anything else, `10G` included: tools do not agree on what it means.
    """
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    found = _AMOUNT.fullmatch(text.strip()) if isinstance(text, str) else None
    unit = found[2].lower() or ("b" if "." not in found[1] else "") if found else ""
    if found and unit in _BYTES:
        return int(Decimal(found[1]) * _BYTES[unit])
    why = f"has the unknown unit {found[2]!r}" if found and found[2] else "is no amount of bytes"
    raise PolicyError(
        f"{text!r} {why}; wanted a number with a unit of {_UNITS_OF_BYTES}: write 10GB or 512MiB"
    )


def parse_target(text: str | int) -> Target:
    """Bytes as `amount` reads them, or the Percent of `20%`; raises PolicyError."""
    found = _PERCENT.fullmatch(text.strip()) if isinstance(text, str) else None
    if found:
        value = Decimal(found[1])
        if not 0 < value <= 100:
            raise PolicyError(f"{text!r} is no part; wanted above 0% and at most 100%: write 20%")
        return Percent(value)
    try:
        return amount(text)
    except PolicyError as error:
        raise PolicyError(f"{error}, or a part of the disk as 20%") from error


def told(seconds: int) -> str:
    """A duration for people, in one unit and rounded down: `31 days`, `5 hours`, `1 minute`."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = seconds // length
        if count > 0:
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return "less than a minute"
