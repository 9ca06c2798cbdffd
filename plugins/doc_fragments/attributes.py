# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every module states about itself, so that the statements read alike."""

from __future__ import annotations


class ModuleDocFragment:
    """The attributes; a module adds C(support) and, where it must, C(details) to each."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description:
      - Whether a run with C(--check) changes nothing and still answers what a real run would do.
  diff_mode:
    description:
      - Whether a run with C(--diff) shows what differs, before and after.
  idempotent:
    description:
      - Whether the same task, run again while nothing else has changed, reports no change and
        moves no data.
      - This holds outside of check mode.
  platform:
    description:
      - The kind of operating system on which the module runs.
    platforms: posix
    support: full
"""
