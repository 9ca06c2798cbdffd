# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of a lock that names these images."""

from __future__ import annotations

DOCUMENTATION = r"""
name: lock_select
short_description: The part of a lock that names these images
version_added: 0.1.0
author: The fleet.images authors (@fleet-images)
description:
  - Keeps of a lock only the images of a list, so that each host gets only its own. Images that the lock lacks are left out.
  - An image that the lock has with another digest than the one wanted is left out as well, unless O(strict) is false.
positional: images
options:
  _input:
    description:
      - A lock, as M(fleet.images.image_fetch) returns it.
    type: dict
    required: true
  images:
    description:
      - Images, as strings or dicts of C(name), C(digest), C(platforms) and C(as).
    type: list
    required: true
    elements: raw
  strict:
    description:
      - With V(false), what contradicts the list stays, and nothing is chosen where the list names no images, for a module
        that tells of both in its own words.
    type: bool
    default: true
    version_added: 0.2.0
"""

EXAMPLES = r"""
- name: Show the lock of one image
  ansible.builtin.debug:
    msg: "{{ {'version': 1, 'images': {}} | fleet.images.lock_select(['docker.io/library/nginx:1.27']) }}"
"""

RETURN = r"""
_value:
  description: The lock.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.fleet.images.plugins.plugin_utils._airgap import select_lock


class FilterModule:
    """The filter lock_select."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {"lock_select": select_lock}
