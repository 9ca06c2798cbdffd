# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one host got from the role image_cleanup."""

from __future__ import annotations

DOCUMENTATION = r"""
name: cleanup_outcome
short_description: What one host got from the role image_cleanup
version_added: 0.3.0
author: The fleet.images authors (@fleet-images)
description:
  - Makes one outcome of what the steps of the role P(fleet.images.image_cleanup#role) gave on one host.
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
- name: Show the outcome of a host that was left alone
  ansible.builtin.debug:
    msg: "{{ {'left_alone': 'too many hosts failed'} | fleet.images.cleanup_outcome('web1') }}"
"""

RETURN = r"""
_value:
  description: The host, whether it is done, the reason if not, counts, bytes and seconds.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.fleet.images.plugins.plugin_utils._cleanup import outcome


def cleanup_outcome(steps: Mapping[str, Any], host: str) -> dict[str, Any]:
    """The outcome of one host."""
    return outcome(host, steps)


class FilterModule:
    """The filter cleanup_outcome."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {"cleanup_outcome": cleanup_outcome}
