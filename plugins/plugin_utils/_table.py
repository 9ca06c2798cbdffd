# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tables for people: columns that line up, bytes and seconds in readable units. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
# Above this many hosts a table shows the ones that failed, and the sums.
MOST_ROWS = 30
MOST_NAMES = 5

Row = Mapping[str, Any]


def human_bytes(count: float) -> str:
    """Bytes in decimal units, as Docker prints them: 1500 is `1.5 kB`."""
    value = float(count)
    for unit in UNITS:
        if abs(value) < 999.95 or unit == UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("the last unit always returns")


def cell(value: Any, kind: str) -> str:
    """One value as a table shows it. `kind`: text, count, bytes or seconds."""
    if value is None or value == "":
        return "-"
    if kind == "bytes":
        return human_bytes(value)
    return f"{float(value):.1f}" if kind == "seconds" else str(value)


def table(columns: Sequence[Row], rows: Sequence[Row]) -> list[str]:
    """The lines of a table with a heading and, for more than one row, sums.

    `columns`: dicts of `key`, `label` and `kind`. Raises KeyError for a column without a key or
    label.
    """
    if not columns:
        return []
    shown = [row for row in rows if len(rows) <= MOST_ROWS or not row.get("done", True)]
    texts = [[str(column["label"]) for column in columns]]
    texts += [[cell(row.get(c["key"]), c.get("kind", "text")) for c in columns] for row in shown]
    if len(rows) > 1:
        texts.append(_sums(columns, rows))
    widths = [max(len(line[index]) for line in texts) for index in range(len(columns))]
    return [
        "  ".join(
            text.ljust(width) if column.get("kind", "text") == "text" else text.rjust(width)
            for text, width, column in zip(line, widths, columns)
        ).rstrip()
        for line in texts
    ]


def reasons(rows: Sequence[Row]) -> list[str]:
    """One line per reason for which hosts are not done, with the hosts that share it."""
    hosts: dict[str, list[str]] = {}
    for row in rows:
        if row.get("reason"):
            hosts.setdefault(str(row["reason"]), []).append(str(row["host"]))
    return [f"{_few(names)}: {reason}" for reason, names in hosts.items()]


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _sums(columns: Sequence[Row], rows: Sequence[Row]) -> list[str]:
    line = []
    for index, column in enumerate(columns):
        kind = column.get("kind", "text")
        if index == 0:
            line.append(f"all {len(rows)}")
        elif kind in ("count", "bytes"):
            values = [row[column["key"]] for row in rows if row.get(column["key"]) is not None]
            # What nobody knows has no sum: bytes of pulls in check mode.
            line.append(cell(sum(values) if values else None, kind))
        else:
            line.append("")
    return line
