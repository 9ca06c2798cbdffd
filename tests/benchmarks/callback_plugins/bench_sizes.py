# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes how large tasks' arguments and results are, as JSON lines, to the file BENCH_SIZES names.

Arguments are seen where Ansible has worked out their templates: when an action begins, and when it
sends a module to a host. Both happen in the worker that Ansible forks for a task and host.
"""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
    name: bench_sizes
    type: notification
    short_description: the sizes of arguments and results
    description: For the benchmarks of fleet.images.
"""


def _size(value: Any) -> int:
    return len(json.dumps(value, default=str))


def _write(row: dict[str, Any]) -> None:
    """One short write at the file's end, which the kernel does not mix with those of others."""
    with open(os.environ["BENCH_SIZES"], "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _watch_arguments() -> None:
    run, execute = ActionBase.run, ActionBase._execute_module

    def noted_run(self: Any, *args: Any, **kwargs: Any) -> Any:
        task = self._task
        _write({"what": "task", "task": task.get_name(), "bytes": _size(task.args)})
        return run(self, *args, **kwargs)

    def noted_execute(self: Any, *args: Any, **kwargs: Any) -> Any:
        sent = kwargs.get("module_args") or self._task.args
        row = {"what": "module", "task": self._task.get_name(), "bytes": _size(sent)}
        if isinstance(sent.get("lock"), dict):
            row["locked"] = sorted(sent["lock"]["images"])
        variables = kwargs.get("task_vars") or {}
        delegated = self._task.delegate_to is not None
        _write({**row, "host": variables.get("inventory_hostname"), "delegated": delegated})
        return execute(self, *args, **kwargs)

    ActionBase.run, ActionBase._execute_module = noted_run, noted_execute


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "bench_sizes"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        _watch_arguments()

    def _ended(self, result: Any) -> None:
        task = result._task.get_name()
        _write({"what": "result", "task": task, "bytes": _size(result._result)})

    def v2_runner_on_ok(self, result: Any) -> None:
        self._ended(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._ended(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._ended(result)
