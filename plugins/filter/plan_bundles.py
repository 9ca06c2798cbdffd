# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bundles to write, one per distinct plan, and not too many."""

from __future__ import annotations

DOCUMENTATION = r"""
name: plan_bundles
short_description: The bundles to write, one per distinct plan
version_added: 0.1.0
author: The fleet.images authors (@fleet-images)
description:
  - Groups hosts by bastion and plan. Hosts that lack the same get the same bundle.
  - Where there are more plans than O(most), those are united that cost the fewest extra bytes on the way to the hosts.
positional: directory
options:
  _input:
    description:
      - One dict per host, of C(bastion) and C(plan), the result of M(fleet.images.image_plan).
    type: list
    required: true
    elements: dict
  directory:
    description:
      - Directory of the bundles on the bastion.
    type: str
    required: true
  locks:
    description:
      - Bastion to the lock that it fetched, which tells the sizes of blobs.
    type: dict
    required: true
  most:
    description:
      - How many bundles a bastion makes at most for one platform.
    type: int
    default: 8
  full:
    description:
      - Whether the bundles bring everything that the planned images need, whatever the hosts hold, and their
        attestations where the Engine keeps those.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show that hosts without a plan need no bundle
  ansible.builtin.debug:
    msg: "{{ [{'bastion': 'bastion', 'plan': {}}] | fleet.images.plan_bundles('/var/tmp', locks={}) }}"
"""

RETURN = r"""
_value:
  description:
    - Per bastion a dict of C(bundles), the entries for O(fleet.images.image_archive#module:bundles), and of C(paths), the path
      for each C(plan_id).
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.fleet.images.plugins.plugin_utils._plans import bundles


class FilterModule:
    """The filter plan_bundles."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {"plan_bundles": bundles}
