# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The paths of the Dockerfiles of builds."""

from __future__ import annotations

DOCUMENTATION = r"""
name: build_dockerfiles
short_description: The paths of the Dockerfiles of builds
version_added: 0.4.0
author: The fleet.images authors (@fleet-images)
description:
  - Names the Dockerfiles that can be read on the build host, so that it is known what builds on what.
options:
  _input:
    description:
      - The builds, each a dict of options of M(fleet.images.buildx_build).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show where the Dockerfile of a build is
  ansible.builtin.debug:
    msg: "{{ [{'path': '/srv/app'}] | fleet.images.build_dockerfiles }}"
"""

RETURN = r"""
_value:
  description: The paths.
  type: list
  elements: str
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.fleet.images.plugins.plugin_utils import _building


def build_dockerfiles(builds: Iterable[Mapping[str, Any]]) -> list[str]:
    """The paths of their Dockerfiles."""
    return _building.dockerfiles(builds)


class FilterModule:
    """The filter build_dockerfiles."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {"build_dockerfiles": build_dockerfiles}
