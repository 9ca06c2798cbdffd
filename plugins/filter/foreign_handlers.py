# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The architectures that a host is to run and cannot."""

from __future__ import annotations

DOCUMENTATION = r"""
name: foreign_handlers
short_description: The architectures that a host is to run and cannot
version_added: 0.4.0
author: The fleet.images authors (@fleet-images)
description:
  - Tells for which architectures a host's kernel lacks a handler of QEMU that steps of a build can use.
positional: platforms, pinned
options:
  _input:
    description:
      - What C(uname -m) prints, and below it what C(grep .) tells of the files in C(/proc/sys/fs/binfmt_misc).
    type: str
    required: true
  platforms:
    description:
      - The platforms that are built for.
    type: list
    elements: str
    required: true
  pinned:
    description:
      - Platforms that other machines build.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Show what a machine lacks that has no handler
  ansible.builtin.debug:
    msg: "{{ 'x86_64' | fleet.images.foreign_handlers(['linux/amd64', 'linux/arm64']) }}"
"""

RETURN = r"""
_value:
  description: What QEMU calls these architectures.
  type: list
  elements: str
"""

from collections.abc import Callable, Iterable
from typing import Any

from ansible_collections.fleet.images.plugins.plugin_utils import _building


def foreign_handlers(told: str, platforms: Iterable[str], pinned: Iterable[str] = ()) -> list[str]:
    """What QEMU calls the architectures that the host lacks."""
    return _building.handlers(told, platforms, pinned)


class FilterModule:
    """The filter foreign_handlers."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {"foreign_handlers": foreign_handlers}
