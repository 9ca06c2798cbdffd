# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work that goes on beside a task, and work that one process of a run does for all the others."""

from __future__ import annotations

import contextlib
import fcntl
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import copy_context
from pathlib import Path
from typing import Any

Told = dict[str, Any]


class Beside(ABC):
    """Work in a thread, while the task goes on with something else.

    `ended` is set when the task is done with that; the work then begins nothing new.
    """

    def __init__(self) -> None:
        self.ended = threading.Event()
        # Ansible keeps what it knows of the task in context variables.
        self._thread = threading.Thread(target=copy_context().run, args=(self.work,))

    @abstractmethod
    def work(self) -> None:
        """What is done in the thread; raises nothing."""

    def start(self) -> None:
        """Begins the work; `end` has to follow."""
        self._thread.start()

    def end(self) -> None:
        """Waits for what the work is at; it may never have begun."""
        self.ended.set()
        if self._thread.ident is not None:
            self._thread.join()


def once(name: str, work: Callable[[], Told], directory: Path) -> Told:
    """What `work` returns, JSON: the first process of a run does it, the others wait and read.

    `name` says of what it is; `directory`: of this run of Ansible, shared by its processes. Raises
    OSError, and whatever `work` raises; then the next one tries.
    """
    with _note(name, directory).open("a+", encoding="ascii") as note:
        fcntl.flock(note, fcntl.LOCK_EX)
        note.seek(0)
        with contextlib.suppress(ValueError):
            noted: Told = json.load(note)
            return noted
        told = work()
        note.truncate(0)
        json.dump(told, note)
    return told


def tell(name: str, told: Told, directory: Path) -> None:
    """Notes for `once` what is known already; raises OSError."""
    _note(name, directory).write_text(json.dumps(told), encoding="ascii")


def _note(name: str, directory: Path) -> Path:
    return directory / f"{name}.json"
