# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action of sdk_pack: sends a pack of the controller to a host that lacks it."""

from __future__ import annotations

import subprocess
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.fleet.images.plugins.plugin_utils._carried import (
    Carried,
    PackError,
    make_pack,
)

# In check mode nothing is made or sent, and the module foresees without either.
FORESEEN = {"src": "the pack of the controller", "sha256": "0" * 64}

Result = dict[str, Any]


class ActionModule(Carried):
    """Runs on the controller; what it does to the host, the module does."""

    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: Result | None = None) -> Result:
        """The module's result."""
        super().run(tmp, task_vars)
        args, task_vars = dict(self._task.args), task_vars or {}
        pack, cache_dir = args.pop("pack", None), args.pop("cache_dir", None)
        ask = boolean(args.pop("ask", True), strict=False)
        if pack is None:
            return self._module(self._task.action, args, task_vars)
        if self._task.check_mode:
            return self._module(self._task.action, {**args, **FORESEEN}, task_vars)
        if ask:
            asked = self._module(self._task.action, args, task_vars)
            if asked.get("failed") or asked.get("installed", True):
                return asked
        try:
            made = make_pack(str(pack), str(cache_dir or ""))
        except (PackError, OSError, subprocess.SubprocessError) as error:
            raise AnsibleActionFail(str(error)) from None
        args.update(src=self._send(made["path"]), sha256=made["sha256"])
        return self._module(self._task.action, args, task_vars)
