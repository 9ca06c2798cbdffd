# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes what each task gave: one JSON line per task and host, to the file RIG_RESULTS names."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
    name: rig_results
    type: notification
    short_description: results of tasks, for tests
    description: A task that kept them would cost more than many of the tasks themselves.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "rig_results"
    CALLBACK_NEEDS_ENABLED = True

    def _keep(self, result: Any, **state: bool) -> None:
        row = {"task": result.task.name, "host": result.host.get_name()}
        told = {"changed": False, "failed": False, **result.result, **state}
        with open(os.environ["RIG_RESULTS"], "a", encoding="utf-8") as file:
            file.write(json.dumps({**row, "result": told}) + "\n")

    def v2_runner_on_ok(self, result: Any) -> None:
        self._keep(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._keep(result, failed=True)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._keep(result, skipped=True)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._keep(result, unreachable=True)
