# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which hosts have the last copy of an image in the fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
name: last_copies
short_description: Which hosts are to keep the last copy of an image
version_added: 0.3.0
author: The fleet.images authors (@fleet-images)
description:
  - Finds the images that every host of a fleet which has them would remove, and says which host keeps each.
  - Works on what the role P(fleet.images.image_cleanup#role) has registered on each host.
options:
  _input:
    description:
      - The variables of all hosts.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the hosts that are to keep images
  ansible.builtin.debug:
    msg: "{{ ansible_play_hosts_all | map('extract', hostvars) | fleet.images.last_copies }}"
"""

RETURN = r"""
_value:
  description: IDs of images by host.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.fleet.images.plugins.plugin_utils._cleanup import last_copies


class FilterModule:
    """The filter last_copies."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {"last_copies": last_copies}
