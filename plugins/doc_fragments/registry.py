# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How modules reach registries: one set of options for all of them."""

from __future__ import annotations


class ModuleDocFragment:
    """The options that C(registry_arguments) of C(_arguments.py) gives to a module."""

    DOCUMENTATION = r"""
options:
  registry_username:
    description:
      - User name for the registries that the images name. It is sent only to a registry that asks for a login, and
        never to a mirror of another name.
      - Without it, the logins of the Docker configuration file of the user who runs this task are used, with its
        C(credsStore) and C(credHelpers), as C(docker login) leaves them.
    type: str
  registry_password:
    description:
      - Password, or access token, that belongs to O(registry_username).
    type: str
  registry_validate_certs:
    description:
      - Whether to verify the TLS certificates of registries.
      - V(false) means what Docker's C(insecure-registries) means, which is https without verification and, where
        the port speaks no TLS, plain http.
      - Registries on the loopback interface are always treated so, as Docker itself does.
    type: bool
    default: true
  registry_ca_path:
    description:
      - A file of certificates in PEM format, or a directory with C(*.crt) or C(*.pem) files, on the host that runs
        this task. They are trusted beside the system's.
    type: path
  registry_mirrors:
    description:
      - For the name of a registry, such as V(docker.io), the base URLs of mirrors, which are asked in their order before
        the registry itself.
      - A URL begins with C(http://) or C(https://) and may have a path. A path that begins with C(/v2/) is taken as
        it is, to other paths C(/v2) is added.
      - Logins for a mirror come from the Docker configuration file.
    type: dict
    default: {}
  registry_proxy:
    description:
      - URL of an HTTP proxy, such as V(http://proxy.example:3128). Registries that E(NO_PROXY) names are reached without it.
      - Without it, E(HTTPS_PROXY), E(HTTP_PROXY) and E(NO_PROXY) count.
    type: str
"""
