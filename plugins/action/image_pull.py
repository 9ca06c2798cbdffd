# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action of image_pull: opens the tunnel to a relay where one is wanted, and runs the module."""

from __future__ import annotations

from typing import Any

from ansible_collections.fleet.images.plugins.plugin_utils._carried import Carried
from ansible_collections.fleet.images.plugins.plugin_utils._tunnel import TunnelError, opened

PULL = "fleet.images.image_pull"

Result = dict[str, Any]


class ActionModule(Carried):
    """Runs on the controller; what it does to the host, the module does."""

    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: Result | None = None) -> Result:
        """The module's result; `tunnel_failed` where there was no way to the relay."""
        result: Result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        args = dict(self._task.args)
        tunnel = args.pop("tunnel", None)
        if self._task.async_val:
            if tunnel:
                return {**result, "failed": True, "msg": "image_pull: tunnel wants no async"}
            return {**result, **self._execute_module(task_vars=task_vars, wrap_async=True)}
        if not tunnel:
            return {**result, **self._module(PULL, args, task_vars)}
        try:
            with opened(self, tunnel, task_vars) as way:
                pulled = self._module(PULL, {**args, "via": way.address}, task_vars)
                if pulled.get("failed") and way.broken:
                    words = f"{pulled.get('msg', '')}; {way.broken}"
                    pulled = {**pulled, "msg": words, "tunnel_failed": True}
                return {**result, **pulled}
        except TunnelError as error:
            refused = {"changed": False, "images": [], "tunnel_failed": True}
            return {**result, **refused, "failed": True, "msg": str(error)}
