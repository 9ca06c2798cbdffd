# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bundles to write, one per distinct plan."""

from __future__ import annotations

DOCUMENTATION = r"""
name: plan_bundles
short_description: The bundles to write, one per distinct plan
version_added: 0.1.0
author: The fleet.images authors (@fleet-images)
description:
  - Groups hosts by bastion and plan. Hosts that lack the same get the same bundle.
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
"""

EXAMPLES = r"""
- name: Show that hosts without a plan need no bundle
  ansible.builtin.debug:
    msg: "{{ [{'bastion': 'bastion', 'plan': {}}] | fleet.images.plan_bundles('/var/tmp') }}"
"""

RETURN = r"""
_value:
  description: Per bastion the entries for O(fleet.images.image_archive#module:bundles).
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.fleet.images.plugins.plugin_utils._airgap import bundles


class FilterModule:
    """The filter plan_bundles."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {"plan_bundles": bundles}
