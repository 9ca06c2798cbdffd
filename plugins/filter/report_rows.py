# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rows of a report."""

from __future__ import annotations

DOCUMENTATION = r"""
name: report_rows
short_description: The rows of a report
version_added: 0.1.0
author: The fleet.images authors (@fleet-images)
description:
  - Makes a row of every host, with a sentence for those that have no result.
options:
  _input:
    description:
      - Host names to the fact that a role left there, null where it left none.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the row of a host without a result
  ansible.builtin.debug:
    msg: "{{ {'web1': none} | fleet.images.report_rows }}"
"""

RETURN = r"""
_value:
  description: The rows.
  type: list
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.fleet.images.plugins.plugin_utils._airgap import rows


class FilterModule:
    """The filter report_rows."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {"report_rows": rows}
