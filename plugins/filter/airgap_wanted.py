# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each bastion has to fetch for its hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
name: airgap_wanted
short_description: What each bastion has to fetch for its hosts
version_added: 0.1.0
author: The fleet.images authors (@fleet-images)
description:
  - The union of what the hosts of a bastion want. An image that names no platforms is wanted for those of its hosts.
options:
  _input:
    description:
      - One dict per host, of C(bastion), C(images) and C(machine), what C(uname -m) says there, empty where it is not known.
    type: list
    required: true
    elements: dict
"""

EXAMPLES = r"""
- name: Show what two hosts of different platforms want together
  ansible.builtin.debug:
    msg: >-
      {{ [{'bastion': 'b', 'machine': 'x86_64', 'images': ['nginx:1.27']},
          {'bastion': 'b', 'machine': 'aarch64', 'images': ['nginx:1.27']}] | fleet.images.airgap_wanted }}
"""

RETURN = r"""
_value:
  description: Bastion to its list for O(fleet.images.image_fetch#module:images).
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.fleet.images.plugins.plugin_utils._airgap import wanted


class FilterModule:
    """The filter airgap_wanted."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {"airgap_wanted": wanted}
