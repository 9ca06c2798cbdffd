# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds in the order of what builds on what."""

from __future__ import annotations

DOCUMENTATION = r"""
name: build_order
short_description: Builds in the order of what builds on what
version_added: 0.4.0
author: The fleet.images authors (@fleet-images)
description:
  - Puts each build after those whose tags its Dockerfile, its build contexts or its own C(needs) name. Else the order
    stays.
  - Builds that need each other are an error.
positional: dockerfiles
options:
  _input:
    description:
      - The builds, each a dict of options of M(fleet.images.buildx_build), and perhaps C(needs), a list of tags.
    type: list
    elements: dict
    required: true
  dockerfiles:
    description:
      - The results of a loop of M(ansible.builtin.slurp) over the paths of their Dockerfiles.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Show in which order two builds are done
  ansible.builtin.debug:
    msg: "{{ builds | fleet.images.build_order }}"
  vars:
    builds:
      - path: /srv/app
        dockerfile_inline: FROM site.example/base:1
        tags: [site.example/app:1]
      - path: /srv/base
        dockerfile_inline: FROM scratch
        tags: [site.example/base:1]
"""

RETURN = r"""
_value:
  description: The builds in their order, each with its C(number) in the list, and no secret of it.
  type: list
  elements: dict
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.fleet.images.plugins.plugin_utils import _building


def build_order(
    builds: list[Mapping[str, Any]], dockerfiles: Iterable[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """The builds, each after those that it builds on."""
    return _building.order(builds, _building.read_files(dockerfiles))


class FilterModule:
    """The filter build_order."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {"build_order": build_order}
