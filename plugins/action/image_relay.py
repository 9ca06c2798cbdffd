# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action of image_relay: makes the certificate where one is wanted and none is given."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.fleet.images.plugins.module_utils._relay_config import names_of
from ansible_collections.fleet.images.plugins.plugin_utils._authority import make_pair
from ansible_collections.fleet.images.plugins.plugin_utils._carried import Carried

Result = dict[str, Any]


RELAY = "fleet.images.image_relay"


class ActionModule(Carried):
    """Runs on the controller; what it does to the host, the module does."""

    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: Result | None = None) -> Result:
        """The module's result."""
        result: Result = super().run(tmp, task_vars)
        args = dict(self._task.args)
        wanted = boolean(args.get("tls") or False, strict=False)
        if args.get("certificate") or args.get("private_key"):
            # The pair of the user says it all.
            args["tls"] = False
        elif wanted and args.get("state", "started") == "started":
            args["certificate"], args["private_key"] = _made(args)
        if self._task.async_val:
            done = self._execute_module(module_args=args, task_vars=task_vars, wrap_async=True)
            return {**result, **done}
        return {**result, **self._module(RELAY, args, task_vars or {})}


def _made(args: Result) -> tuple[str, str]:
    given = args.get("names") or []
    names = names_of(
        str(args.get("address") or "127.0.0.1"),
        tuple(given.split(",") if isinstance(given, str) else map(str, given)),
    )
    if not names:
        raise AnsibleActionFail(
            f"address {args['address']}: its certificate wants the names under which hosts reach"
            " the relay, none is there; give names"
        )
    try:
        return make_pair(names)
    except ValueError as error:
        raise AnsibleActionFail(
            f"address and names: wanted IP addresses and DNS names, found {', '.join(names)}"
            f" ({error}); mend them"
        ) from None
