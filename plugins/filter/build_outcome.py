# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one host did for the role image_build."""

from __future__ import annotations

DOCUMENTATION = r"""
name: build_outcome
short_description: What one host did for the role image_build
version_added: 0.4.0
author: The fleet.images authors (@fleet-images)
description:
  - Makes one outcome of what the steps of the role P(fleet.images.image_build#role) gave on one host.
positional: host
options:
  _input:
    description:
      - The results of the steps.
    type: dict
    required: true
  host:
    description:
      - The host's name.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show the outcome of a host that built nothing
  ansible.builtin.debug:
    msg: "{{ {'builds': []} | fleet.images.build_outcome('build1') }}"
"""

RETURN = r"""
_value:
  description: The host, whether it is done, the reason if not, its builds, and the lock of these.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.fleet.images.plugins.plugin_utils import _building


def build_outcome(steps: Mapping[str, Any], host: str) -> dict[str, Any]:
    """The outcome of one host."""
    return _building.outcome(host, steps)


class FilterModule:
    """The filter build_outcome."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {"build_outcome": build_outcome}
