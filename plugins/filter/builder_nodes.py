# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts as the nodes of a builder."""

from __future__ import annotations

DOCUMENTATION = r"""
name: builder_nodes
short_description: Hosts as the nodes of a builder
version_added: 0.4.0
author: The fleet.images authors (@fleet-images)
description:
  - Makes nodes for M(fleet.images.buildx_builder) of hosts, each reached by ssh and building what it is.
options:
  _input:
    description:
      - The variables of the hosts. C(ansible_host), C(ansible_port) and C(ansible_user) say how they are reached,
        C(image_build_node_platforms) what they build.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the node that a host is
  ansible.builtin.debug:
    msg: "{{ [host] | fleet.images.builder_nodes }}"
  vars:
    host:
      inventory_hostname: arm1
      image_build_node_platforms: [linux/arm64]
"""

RETURN = r"""
_value:
  description: The nodes.
  type: list
  elements: dict
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.fleet.images.plugins.plugin_utils import _building


def builder_nodes(hosts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The nodes."""
    return _building.nodes(hosts)


class FilterModule:
    """The filter builder_nodes."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {"builder_nodes": builder_nodes}
