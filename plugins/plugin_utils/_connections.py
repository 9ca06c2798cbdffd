# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The connection that Ansible would use to another host of the inventory than the task's."""

from __future__ import annotations

import os
from typing import Any

from ansible import constants as C
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import connection_loader

Vars = dict[str, Any]


def connection_to(host: str, action: ActionBase, task_vars: Vars) -> Any:
    """The connection plugin with the options of that host; nothing is connected yet.

    `host`: an inventory name, or `localhost`, which need not be in it.
    """
    known = task_vars["hostvars"].get(host, {})
    local = host in ("localhost", "127.0.0.1", "::1")
    kind = "local" if local else "ssh"
    if "ansible_connection" in known:
        kind = str(action._templar.template(known["ansible_connection"]))
    connection = connection_loader.get(kind, action._play_context, os.devnull)
    names = C.config.get_plugin_vars("connection", connection._load_name)
    given = {name: action._templar.template(known[name]) for name in names if name in known}
    given.setdefault("inventory_hostname", host)
    connection.set_options(var_options=given)
    return connection
