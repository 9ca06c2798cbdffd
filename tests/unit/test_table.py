# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report's table: columns that line up, true sums, and a fleet that fits on a screen."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import AMD64

from ansible_collections.fleet.images.plugins.plugin_utils._table import (
    MOST_NAMES,
    MOST_ROWS,
    cell,
    human_bytes,
    reasons,
    table,
)

COLUMNS = [
    {"key": "host", "label": "node"},
    {"key": "store", "label": "store", "kind": "text"},
    {"key": "loaded", "label": "loaded", "kind": "count"},
    {"key": "sent", "label": "sent", "kind": "bytes"},
    {"key": "seconds", "label": "seconds", "kind": "seconds"},
]


def row(host: str, **values: Any) -> dict[str, Any]:
    full = {"store": "classic", "loaded": 1, "sent": 1500, "seconds": 1.25, "done": True}
    return {"host": host, **full, **values}


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1500, "1.5 kB"), (999_949, "999.9 kB")]
    + [(999_950, "1.0 MB"), (286_000_000, "286.0 MB"), (10**12, "1.0 TB"), (10**18, "1000.0 PB")],
)
def test_bytes_as_docker_prints_them(count: int, text: str) -> None:
    assert human_bytes(count) == text


@given(st.integers(0, 10**15), st.integers(0, 10**15))
def test_more_bytes_never_look_fewer(one: int, two: int) -> None:
    units = ["B", "kB", "MB", "GB", "TB", "PB"]
    few, many = (human_bytes(count).split() for count in sorted((one, two)))
    assert units.index(few[1]) <= units.index(many[1])
    assert few[1] != many[1] or float(few[0]) <= float(many[0])
    assert 0 <= float(many[0]) < 1000


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [(None, "bytes", "-"), ("", "text", "-"), (0, "count", "0"), (0, "bytes", "0 B")]
    + [(0, "seconds", "0.0"), (3, "seconds", "3.0"), (AMD64, "text", AMD64)],
)
def test_cells(value: Any, kind: str, text: str) -> None:
    assert cell(value, kind) == text


def test_columns_line_up() -> None:
    lines = table(COLUMNS, [row("n1"), row("a-long-name", sent=286_000_000, seconds=None)])
    assert lines == [
        "node         store    loaded      sent  seconds",
        "n1           classic       1    1.5 kB      1.2",
        "a-long-name  classic       1  286.0 MB        -",
        "all 2                      2  286.0 MB",
    ]


ROWS = st.lists(
    st.builds(
        row,
        st.text("abc-", min_size=1, max_size=9),
        loaded=st.integers(0, 99),
        sent=st.integers(0, 10**12),
        done=st.booleans(),
    ),
    max_size=70,
)


@given(ROWS)
def test_any_rows_line_up_and_add_up(rows: list[dict[str, Any]]) -> None:
    lines = table(COLUMNS, rows)
    ends = {line.index(" kB") for line in lines if " kB" in line}
    assert len(ends) <= 1
    if len(rows) > 1:
        assert lines[-1].split()[:3] == ["all", str(len(rows)), str(sum(r["loaded"] for r in rows))]
        assert lines[-1].endswith(human_bytes(sum(r["sent"] for r in rows)))
    else:
        assert len(lines) == 1 + len(rows)


def test_a_large_fleet_shows_what_failed_and_the_sums() -> None:
    fine = [row(f"n{number}") for number in range(MOST_ROWS)]
    assert len(table(COLUMNS, fine)) == 1 + MOST_ROWS + 1
    bad = row("bad", loaded=0, done=False, reason="it is unreachable")
    lines = table(COLUMNS, [*fine, bad])
    assert [line.split()[0] for line in lines] == ["node", "bad", "all"]
    assert lines[-1].split()[1:3] == [str(MOST_ROWS + 1), str(MOST_ROWS)]
    assert len(table(COLUMNS, [*fine, row("one more")])) == 2


def test_a_host_that_got_nowhere_has_empty_cells() -> None:
    lines = table(COLUMNS, [row("n1"), {"host": "n2", "done": False, "reason": "down"}])
    assert lines[2].split() == ["n2", "-", "-", "-", "-"]
    assert lines[3].split() == ["all", "2", "1", "1.5", "kB"]


def test_nothing_to_show() -> None:
    assert table([], [row("n1")]) == []
    assert table(COLUMNS, []) == ["node  store  loaded  sent  seconds"]
    with pytest.raises(KeyError):
        table([{"key": "host"}], [])


def test_a_reason_stands_once_with_its_hosts() -> None:
    rows = [row("n1", reason="down"), row("n2"), row("n3", reason="full"), row("n4", reason="down")]
    assert reasons(rows) == ["n1, n4: down", "n3: full"]
    many = [row(f"n{number}", reason="down") for number in range(MOST_NAMES + 3)]
    (line,) = reasons(many)
    assert line.endswith(" and 3 more: down")
    assert line.count(",") == MOST_NAMES - 1
