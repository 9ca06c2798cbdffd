# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bytes in readable units."""

from __future__ import annotations

DOCUMENTATION = r"""
name: human_bytes
short_description: Bytes in readable units
version_added: 0.1.0
author: The fleet.images authors (@fleet-images)
description:
  - Writes a number of bytes in decimal units, as Docker prints them.
options:
  _input:
    description:
      - A number of bytes.
    type: float
    required: true
"""

EXAMPLES = r"""
- name: Say how much a host lacks
  ansible.builtin.debug:
    msg: "{{ 1500000 | fleet.images.human_bytes }}"
  # 1.5 MB
"""

RETURN = r"""
_value:
  description: The text.
  type: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.fleet.images.plugins.plugin_utils._table import human_bytes


class FilterModule:
    """The filter human_bytes."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {"human_bytes": human_bytes}
