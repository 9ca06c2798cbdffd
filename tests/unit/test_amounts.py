# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Durations and amounts of bytes: what is read, and what is refused with its unit."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleet.images.plugins.module_utils._amounts import (
    Percent,
    PolicyError,
    amount,
    duration,
    parse_target,
    told,
)

MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("15m", 15 * MINUTE),
        ("36h", 36 * HOUR),
        ("14d", 14 * DAY),
        ("2w", 14 * DAY),
        ("1d12h", DAY + 12 * HOUR),
        ("12h 1d", DAY + 12 * HOUR),
        (" 1w2d3h4m5s ", 9 * DAY + 3 * HOUR + 4 * MINUTE + 5),
        ("0s", 0),
    ],
)
def test_durations(text: str, seconds: int) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("14", "'14' has no unit"),
        (14, "14 has no unit"),
        ("14 days", "'14 days' is no duration"),
        ("14y", "'14y' is no duration"),
        ("15M", "'15M' is no duration"),
        ("1.5d", "'1.5d' is no duration"),
        ("-1d", "'-1d' is no duration"),
        ("1d1d", "'1d1d' is no duration"),
        ("1d12", "'1d12' is no duration"),
        ("d", "'d' is no duration"),
        ("", "'' is no duration"),
        ("9999999999d", "'9999999999d' is no duration"),
        ("\u0661d", "is no duration"),
        (True, "True is no duration"),
        (None, "None is no duration"),
        (1.0, "1.0 is no duration"),
        (-3, "-3 is no duration"),
    ],
)
def test_no_durations(text: Any, said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        duration(text)
    message = str(caught.value)
    assert said in message and "s, m, h, d or w" in message and "\n" not in message


def test_a_number_without_unit_is_given_one() -> None:
    with pytest.raises(PolicyError, match=r"write 14d$"):
        duration("14")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("10GB", 10 * 10**9),
        ("512MiB", 512 * 2**20),
        ("1.5 GB", 1_500_000_000),
        (1073741824, 1073741824),
        ("1073741824", 1073741824),
        (0, 0),
        ("7b", 7),
        ("1kB", 1000),
        ("1KB", 1000),
        ("1kib", 1024),
        ("2Mb", 2_000_000),
        ("3gib", 3 * 2**30),
        ("1TB", 10**12),
        ("1TiB", 2**40),
        ("1PB", 10**15),
        ("1PiB", 2**50),
        ("0.1KiB", 102),
    ],
)
def test_amounts(text: str | int, count: int) -> None:
    assert amount(text) == parse_target(text) == count
    assert isinstance(amount(text), int)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10G", "unknown unit 'G'"),
        ("10 apples", "unknown unit 'apples'"),
        ("10EB", "unknown unit 'EB'"),
        ("1,5GB", "is no amount"),
        ("-1GB", "is no amount"),
        (-1, "is no amount"),
        ("1.5", "is no amount"),
        (1.5, "is no amount"),
        ("GB", "is no amount"),
        ("", "is no amount"),
        ("1" * 25, "is no amount"),
        (True, "is no amount"),
        (None, "is no amount"),
        ("20%", "is no amount"),
    ],
)
def test_no_amounts(text: Any, said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        amount(text)
    message = str(caught.value)
    assert message.startswith(repr(text)) and said in message
    assert "kB, MB, GB" in message and "MiB, GiB" in message and "\n" not in message


@pytest.mark.parametrize(
    ("text", "value"), [("20%", "20"), (" 12.5 % ", "12.5"), ("100%", "100"), ("0.1%", "0.1")]
)
def test_percents(text: str, value: str) -> None:
    assert parse_target(text) == Percent(Decimal(value))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0%", "above 0%"),
        ("101%", "at most 100%"),
        ("100.1%", "at most 100%"),
        ("%", "a part of the disk as 20%"),
        ("-5%", "a part of the disk as 20%"),
        ("10G", "a part of the disk as 20%"),
    ],
)
def test_no_targets(text: str, said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_target(text)
    assert repr(text) in str(caught.value) and said in str(caught.value)


@pytest.mark.parametrize(
    ("percent", "total", "part"), [("20", 1000, 200), ("33", 10, 4), ("0.1", 10**15, 10**12)]
)
def test_a_part_is_at_least_the_part(percent: str, total: int, part: int) -> None:
    assert Percent(Decimal(percent)).of(total) == part
    assert str(Percent(Decimal(percent))) == f"{percent}%"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "less than a minute"),
        (59, "less than a minute"),
        (60, "1 minute"),
        (2 * HOUR - 1, "1 hour"),
        (2 * HOUR, "2 hours"),
        (DAY - 1, "23 hours"),
        (DAY, "1 day"),
        (31 * DAY + 5, "31 days"),
    ],
)
def test_durations_for_people(seconds: int, words: str) -> None:
    assert told(seconds) == words


@given(st.text("0123456789smhdwGiB%. -") | st.integers() | st.text())
def test_anything_is_read_or_refused(text: str | int) -> None:
    for read in (duration, amount, parse_target):
        try:
            value = read(text)
        except PolicyError as error:
            assert "\n" not in str(error)
        else:
            assert isinstance(value, Percent) or value >= 0
