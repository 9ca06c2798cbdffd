# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A row for each build of each host."""

from __future__ import annotations

DOCUMENTATION = r"""
name: build_rows
short_description: A row for each build of each host
version_added: 0.4.0
author: The fleet.images authors (@fleet-images)
description:
  - Makes the rows of the table of the role P(fleet.images.image_build#role).
options:
  _input:
    description:
      - The variables of the hosts, with the fact C(image_build_result).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the rows of a host that was lost
  ansible.builtin.debug:
    msg: "{{ [{'inventory_hostname': 'build1'}] | fleet.images.build_rows }}"
"""

RETURN = r"""
_value:
  description: The rows.
  type: list
  elements: dict
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.fleet.images.plugins.plugin_utils import _building


def build_rows(hosts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the table."""
    return _building.rows(hosts)


class FilterModule:
    """The filter build_rows."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {"build_rows": build_rows}
