# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The connection to an Engine: options of every module that talks to one."""

from __future__ import annotations


class ModuleDocFragment:
    """Options with the names and environment fall-backs that users of community.docker know."""

    DOCUMENTATION = r"""
options:
  docker_host:
    description:
      - The Engine's address. C(unix://) for a socket, C(tcp://) for a port, C(ssh://) for another host.
      - If it is not given, the environment variable E(DOCKER_HOST) is taken.
    type: str
    default: unix:///var/run/docker.sock
    aliases: [docker_url]
  tls:
    description:
      - Whether to talk TLS to the Engine, without looking at its certificate.
      - If it is not given, the environment variable E(DOCKER_TLS) is taken.
    type: bool
    default: false
  validate_certs:
    description:
      - Whether to talk TLS to the Engine and to verify its certificate.
      - If it is not given, the environment variable E(DOCKER_TLS_VERIFY) is taken.
    type: bool
    default: false
    aliases: [tls_verify]
  ca_path:
    description:
      - File with the certificate of the authority that signed the Engine's.
      - If it is not given, C(ca.pem) below the directory that E(DOCKER_CERT_PATH) names is taken.
    type: path
    aliases: [ca_cert, tls_ca_cert, cacert_path]
  client_cert:
    description:
      - File with the client's certificate.
      - If it is not given, C(cert.pem) below the directory that E(DOCKER_CERT_PATH) names is taken.
    type: path
    aliases: [tls_client_cert, cert_path]
  client_key:
    description:
      - File with the key of the client's certificate.
      - If it is not given, C(key.pem) below the directory that E(DOCKER_CERT_PATH) names is taken.
    type: path
    aliases: [tls_client_key, key_path]
  tls_hostname:
    description:
      - The name that is expected in the Engine's certificate, where it differs from the address.
      - If it is not given, the environment variable E(DOCKER_TLS_HOSTNAME) is taken.
    type: str
  api_version:
    description:
      - The version of the Engine API to speak; V(auto) takes the Engine's own.
      - If it is not given, the environment variable E(DOCKER_API_VERSION) is taken.
    type: str
    default: auto
    aliases: [docker_api_version]
  timeout:
    description:
      - Seconds to wait for one answer of the Engine. Silence during long work has its own limit.
      - If it is not given, the environment variable E(DOCKER_TIMEOUT) is taken.
    type: int
    default: 60
  use_ssh_client:
    description:
      - Whether C(ssh://) goes through the host's C(ssh) command.
    type: bool
    default: false
requirements:
  - Docker Engine 20.10 or newer
  - Docker SDK for Python, as the role P(fleet.images.docker_sdk#role) brings it; to a host without, it travels along
    with the task
"""
