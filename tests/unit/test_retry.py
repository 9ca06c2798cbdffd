# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trying again: how often, how long, and what never."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleet.images.plugins.module_utils._retry import (
    Retrier,
    Retryable,
    is_transient,
    retry_after,
)


class Work:
    """Fails with these errors, one for each try, and then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.tries = 0

    def __call__(self) -> str:
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def retrier(waits: list[float], **settings: Any) -> Retrier:
    return Retrier(sleep=waits.append, jitter=lambda: 1.0, **settings)


def test_first_success_waits_for_nothing() -> None:
    waits: list[float] = []
    done = retrier(waits).call(Work())
    assert (done.value, done.attempts, waits) == ("done", 1, [])


def test_waits_grow_and_tries_are_counted() -> None:
    waits: list[float] = []
    work = Work(*(Retryable("not now") for _try in range(3)))
    assert retrier(waits).call(work).attempts == 4
    assert waits == [1.0, 2.0, 4.0]


def test_gives_up_with_the_last_error_and_the_count() -> None:
    waits: list[float] = []
    work = Work(*(Retryable(f"try {number}") for number in range(9)))
    with pytest.raises(Retryable, match="try 2") as caught:
        retrier(waits, retries=2).call(work)
    assert (caught.value.attempts, work.tries, len(waits)) == (3, 3, 2)


def test_other_errors_pass_at_once() -> None:
    work = Work(ValueError("for good"))
    with pytest.raises(ValueError, match="for good"):
        retrier([]).call(work)
    assert work.tries == 1


def test_waits_at_least_as_long_as_asked() -> None:
    waits: list[float] = []
    retrier(waits).call(Work(Retryable("slow down", after=17.0)))
    assert waits == [18.0]


def test_does_not_wait_longer_than_anybody_has_patience() -> None:
    waits: list[float] = []
    work = Work(Retryable("come back tomorrow", after=86400.0))
    with pytest.raises(Retryable):
        retrier(waits).call(work)
    assert (work.tries, waits) == (1, [])


def test_progress_does_not_use_up_retries() -> None:
    work = Work(*(Retryable("cut", progress=True) for _try in range(7)))
    assert retrier([], retries=1).call(work).attempts == 8


def test_no_retries_means_one_try_even_with_progress() -> None:
    work = Work(Retryable("cut", progress=True))
    with pytest.raises(Retryable):
        retrier([], retries=0).call(work)
    assert work.tries == 1


@given(st.integers(1, 10_000), st.floats(0, 1), st.none() | st.floats(0, 1e4))
def test_waits_stay_in_their_bounds(failures: int, jitter: float, after: float | None) -> None:
    wait = Retrier(jitter=lambda: jitter).wait(failures, after)
    if after is None:
        assert 0.5 <= wait <= 30.0
    else:
        assert after <= wait <= after + 1.0


@pytest.mark.parametrize(
    ("status", "again"),
    [(429, True), (500, True), (502, True), (503, True), (599, True)]
    + [(status, False) for status in (200, 301, 400, 401, 403, 404, 405, 416, 418, 600)],
)
def test_statuses_that_may_change(status: int, again: bool) -> None:
    assert is_transient(status) is again


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("9" * 40, 999999999.0),
        ("Thu, 01 Jan 1970 00:20:00 GMT", 200.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
        ("Thu, 99 Jan 1970 00:00:01 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, now=1000.0) == seconds


@given(st.text(max_size=60))
def test_retry_after_takes_any_text(value: str) -> None:
    seconds = retry_after(value)
    assert seconds is None or seconds >= 0
