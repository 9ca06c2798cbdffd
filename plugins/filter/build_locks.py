# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lock of what all hosts built."""

from __future__ import annotations

DOCUMENTATION = r"""
name: build_locks
short_description: The lock of what all hosts built
version_added: 0.4.0
author: The fleet.images authors (@fleet-images)
description:
  - Unites the locks of what the hosts built for the role P(fleet.images.image_build#role).
options:
  _input:
    description:
      - The variables of the hosts, with the fact C(image_build_result).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show that there is no lock where nothing was built
  ansible.builtin.debug:
    msg: "{{ [{'inventory_hostname': 'build1'}] | fleet.images.build_locks }}"
"""

RETURN = r"""
_value:
  description: The lock, null where there is none.
  type: dict
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.fleet.images.plugins.plugin_utils import _building


def build_locks(hosts: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The lock of all that was built."""
    return _building.locks(hosts)


class FilterModule:
    """The filter build_locks."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {"build_locks": build_locks}
