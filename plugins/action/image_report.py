# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prints what a role did on every host, as a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.fleet.images.plugins.module_utils._layout import write_atomically
from ansible_collections.fleet.images.plugins.plugin_utils._table import reasons, table

display = Display()

Result = dict[str, Any]


class ActionModule(ActionBase):
    """Runs on the controller only."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: Result | None = None) -> Result:
        """The task's result, as image_report documents it."""
        result: Result = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(
            {
                "title": {"type": "str", "required": True},
                "columns": {"type": "list", "elements": "dict", "default": []},
                "rows": {"type": "list", "elements": "dict", "default": []},
                "fact": {"type": "str"},
                "linear": {"type": "bool", "default": False},
                "note": {"type": "str", "default": ""},
                "path": {"type": "path"},
            },
            mutually_exclusive=[("rows", "fact")],
        )
        if args["linear"]:
            self._refuse_free()
        rows = _rows(args["fact"], task_vars or {}) if args["fact"] else args["rows"]
        lines, sentences = table(args["columns"], rows), reasons(rows)
        prefix = "(check mode) " if self._task.check_mode else ""
        display.display(f"\n{prefix}{args['title']}", color="bright blue")
        for line in lines:
            display.display(line)
        for sentence in sentences:
            display.display(sentence, color="red")
        if args["note"]:
            display.display(args["note"])
        changed = bool(args["path"]) and self._write(Path(args["path"]), rows)
        return {**result, "changed": changed, "lines": lines + sentences}

    def _refuse_free(self) -> None:
        """Steps that run once for all hosts need all hosts at the same step."""
        strategy = self._task.get_play().strategy
        if strategy.rpartition(".")[2] not in ("linear", "debug"):
            raise AnsibleActionFail(
                f"the play's strategy: linear is wanted, {strategy} is set; remove that line"
            )

    def _write(self, path: Path, rows: list[Result]) -> bool:
        """Writes the rows as JSON where they differ from what stands there."""
        content = (json.dumps(rows, indent=2, sort_keys=True, default=str) + "\n").encode()
        try:
            if path.is_file() and path.read_bytes() == content:
                return False
            if not self._task.check_mode:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, content)
        except OSError as error:
            raise AnsibleActionFail(f"{path}: the report could not be written: {error}") from None
        return True


def _rows(fact: str, task_vars: Result) -> list[Result]:
    """The fact of every host of the play, those included that the play has lost."""
    missing = {"done": False, "reason": "the run ended for it before the report"}
    return [
        task_vars["hostvars"][host].get(fact) or {"host": host, **missing}
        for host in task_vars["ansible_play_hosts_all"]
    ]
