# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Trying again: what may be tried again, how often, and how long to wait in between.

The caller decides what is worth another try by raising `Retryable`; every other exception passes
through at once. `is_transient` is the rule for HTTP statuses.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Generic, TypeVar

T = TypeVar("T")


class Retryable(Exception):
    """A failure that may be gone at the next try.

    `after`: seconds that the other side asks to wait, None where it says nothing.
    `progress`: whether the try brought the work forward, so that it does not use up a retry.
    `attempts`: how many tries were made, set when the last of them failed.
    """

    def __init__(self, message: str, *, after: float | None = None, progress: bool = False) -> None:
        super().__init__(message)
        self.after = after
        self.progress = progress
        self.attempts = 1


@dataclass(frozen=True)
class Done(Generic[T]):
    """What the work returned, and how many tries it took (1: the first one)."""

    value: T
    attempts: int


@dataclass(frozen=True)
class Retrier:
    """Exponential back-off with jitter. All durations are seconds.

    `retries`: further tries after the first. `base` doubles with each retry up to `longest`; half
    of each wait is random, so that the hosts of a fleet do not come back all at once.
    `patience`: the longest wait that the other side may ask for; beyond it, giving up is kinder.
    """

    retries: int = 3
    base: float = 1.0
    longest: float = 30.0
    patience: float = 120.0
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    jitter: Callable[[], float] = field(default=random.random, repr=False)

    def call(self, work: Callable[[], T]) -> Done[T]:
        """Does the work until it succeeds; raises its last Retryable, or what else it raises."""
        attempts = failures = 0
        while True:
            attempts += 1
            try:
                return Done(work(), attempts)
            except Retryable as error:
                error.attempts = attempts
                failures = 1 if error.progress else failures + 1
                if failures > self.retries or (error.after or 0.0) > self.patience:
                    raise
                wait = self.wait(failures, error.after)
            self.sleep(wait)

    def wait(self, failures: int, after: float | None = None) -> float:
        """Seconds to wait after so many failures in a row (1 or more).

        What the other side asks for (`after`) is the least; the jitter comes on top of it.
        """
        full = min(self.longest, self.base * 2.0 ** min(failures - 1, 32))
        if after is None:
            return full / 2 + full / 2 * self.jitter()
        return after + self.base * self.jitter()


def is_transient(status: int) -> bool:
    """Whether an answer of this HTTP status may be another one at the next try.

    429 (RFC 6585, section 4) and every 5xx (RFC 9110, section 15.6); never 401, 403 or 404.
    """
    return status == 429 or 500 <= status <= 599


def retry_after(value: str | None, now: float | None = None) -> float | None:
    """The seconds that a Retry-After header asks for; None where it is absent or no such header.

    Either seconds or an HTTP date (RFC 9110, section 10.2.3). `now`: seconds since the epoch.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        then = parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, then - (time.time() if now is None else now))
