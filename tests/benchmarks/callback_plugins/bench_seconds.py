# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes how long each task took on each host, as JSON lines, to the file BENCH_SECONDS names."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
    name: bench_seconds
    type: notification
    short_description: how long tasks take
    description: For the benchmarks of fleet.images.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "bench_seconds"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._began = 0.0

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._began = time.monotonic()

    def v2_runner_on_ok(self, result: Any) -> None:
        row = {
            "host": result._host.name,
            "task": result._task.get_name(),
            "seconds": time.monotonic() - self._began,
            "images": len(result._result.get("images", [])),
        }
        with open(os.environ["BENCH_SECONDS"], "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
