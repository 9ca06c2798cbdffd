# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes what each task cost: one JSON line per task and host, to the file BENCH_PROFILE names."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
    name: bench_profile
    type: notification
    short_description: when each task began and ended on each host
    description: For the benchmarks of fleet.images.
"""


def _write(row: dict[str, Any]) -> None:
    """One short write at the file's end: workers write here, too."""
    with open(os.environ["BENCH_PROFILE"], "a", encoding="utf-8") as file:
        file.write(json.dumps({"at": time.time(), **row}) + "\n")


def _watch_commands() -> None:
    """Notes every command that an action runs on a host: a module, or a line of shell."""
    execute = ActionBase._low_level_execute_command

    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        address = getattr(self._connection, "host", None) or self._play_context.remote_addr
        row = {"event": "command", "task": self._task.get_name(), "id": self._task._uuid}
        _write({**row, "transport": self._connection.transport, "address": address})
        return execute(self, *args, **kwargs)

    ActionBase._low_level_execute_command = noted


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "bench_profile"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._began: dict[tuple[str, str], float] = {}
        _watch_commands()
        _write({"event": "loaded"})

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        _write({"event": "task", "task": task.get_name()})

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self._began[(host.get_name(), task._uuid)] = time.time()

    def _ended(self, result: Any, how: str) -> None:
        host, task = result._host.get_name(), result._task
        began = self._began.get((host, task._uuid), time.time())
        row = {"event": "host", "task": task.get_name(), "host": host, "how": how}
        _write({**row, "action": task.action, "seconds": round(time.time() - began, 3)})

    def v2_runner_on_ok(self, result: Any) -> None:
        self._ended(result, "ok")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._ended(result, "failed")

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._ended(result, "skipped")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._ended(result, "unreachable")

    def v2_playbook_on_stats(self, stats: Any) -> None:
        _write({"event": "end"})
