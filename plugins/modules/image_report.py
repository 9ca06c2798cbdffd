#!/usr/bin/python
# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_report
short_description: Print what was done on every host, as a table
version_added: 0.1.0
description:
  - Prints rows in readable columns, with sums below, and a sentence for every host that failed.
  - Above 30 hosts only those that failed are shown, and the sums.
  - Runs on the controller and reaches no host.
author: The fleet.images authors (@fleet-images)
extends_documentation_fragment:
  - fleet.images.attributes
attributes:
  check_mode:
    support: full
    details: The table is printed, the file at O(path) is not written.
  diff_mode:
    support: none
  idempotent:
    support: full
    details: Printing is no change, and neither is a file that holds the same rows already.
  platform:
    platforms: posix
options:
  title:
    description:
      - The line above the table.
    type: str
    required: true
  columns:
    description:
      - The columns, each a dict of C(key) (of the rows), C(label) and C(kind), which is V(text), V(count), V(bytes) or V(seconds).
    type: list
    elements: dict
    default: []
  rows:
    description:
      - The rows, each a dict with C(host), C(done) and C(reason) besides the columns' keys.
    type: list
    elements: dict
    default: []
  fact:
    description:
      - The name of a fact of every host of the play that is its row, in place of O(rows).
      - So the rows of a large fleet are no argument of the task. A host without the fact has a row that says so.
    type: str
  linear:
    description:
      - Whether to refuse a play whose strategy is not linear.
    type: bool
    default: false
  note:
    description:
      - A line below the table, as the next step to take.
    type: str
    default: ""
  path:
    description:
      - File on the controller that gets the rows as JSON.
    type: path
"""

EXAMPLES = r"""
- name: Print a table of two hosts
  fleet.images.image_report:
    title: "seeded: shop"
    columns:
      - {key: host, label: host}
      - {key: bytes_sent, label: sent, kind: bytes}
    rows:
      - {host: web1, done: true, bytes_sent: 1048576}
      - {host: web2, done: false, bytes_sent: 0, reason: the host is unreachable}
  run_once: true
"""

RETURN = r"""
lines:
  description: The lines of the table.
  returned: success
  type: list
  elements: str
"""
