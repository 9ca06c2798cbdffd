# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The blob lists that matter for a lock."""

from __future__ import annotations

DOCUMENTATION = r"""
name: known_select
short_description: The blob lists that matter for a lock
version_added: 0.1.0
author: The fleet.images authors (@fleet-images)
description:
  - Keeps of what a store knows only the manifests that share a layer with a lock, and of those only the shared layers.
positional: lock
options:
  _input:
    description:
      - Blob lists, as M(fleet.images.image_fetch) returns them in RV(ignore:known).
    type: list
    required: true
    elements: dict
  lock:
    description:
      - The lock.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the blob lists for an empty lock
  ansible.builtin.debug:
    msg: "{{ [] | fleet.images.known_select({'version': 1, 'images': {}}) }}"
"""

RETURN = r"""
_value:
  description: The blob lists.
  type: list
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.fleet.images.plugins.plugin_utils._airgap import select_known


class FilterModule:
    """The filter known_select."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {"known_select": select_known}
