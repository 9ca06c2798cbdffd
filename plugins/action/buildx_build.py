# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action of buildx_build: runs the module, on a host without the Docker SDK as well."""

from __future__ import annotations

from ansible_collections.fleet.images.plugins.plugin_utils._carried import CarriedModule


class ActionModule(CarriedModule):
    """Runs on the controller; what it does to the host, the module does."""
