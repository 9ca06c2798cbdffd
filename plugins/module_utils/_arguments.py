# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Argument specifications that several modules share; the docs stand in the doc fragments."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import env_fallback


def _from_environment(name: str) -> dict[str, Any]:
    return {"fallback": (env_fallback, [name])}


def engine_arguments() -> dict[str, Any]:
    """Options of a connection to an Engine (doc fragment fleet.images.engine)."""
    return {
        "docker_host": {
            "type": "str",
            "default": "unix:///var/run/docker.sock",
            "aliases": ["docker_url"],
            **_from_environment("DOCKER_HOST"),
        },
        "tls": {"type": "bool", "default": False, **_from_environment("DOCKER_TLS")},
        "validate_certs": {
            "type": "bool",
            "default": False,
            "aliases": ["tls_verify"],
            **_from_environment("DOCKER_TLS_VERIFY"),
        },
        "ca_path": {"type": "path", "aliases": ["ca_cert", "tls_ca_cert", "cacert_path"]},
        "client_cert": {"type": "path", "aliases": ["tls_client_cert", "cert_path"]},
        "client_key": {"type": "path", "aliases": ["tls_client_key", "key_path"]},
        "tls_hostname": {"type": "str", **_from_environment("DOCKER_TLS_HOSTNAME")},
        "api_version": {
            "type": "str",
            "default": "auto",
            "aliases": ["docker_api_version"],
            **_from_environment("DOCKER_API_VERSION"),
        },
        "timeout": {"type": "int", "default": 60, **_from_environment("DOCKER_TIMEOUT")},
        "use_ssh_client": {"type": "bool", "default": False},
    }


def registry_arguments() -> dict[str, Any]:
    """The modules' options of a connection to a registry (doc fragment fleet.images.registry)."""
    return {
        "registry_username": {"type": "str"},
        "registry_password": {"type": "str", "no_log": True},
        "registry_validate_certs": {"type": "bool", "default": True},
        "registry_ca_path": {"type": "path"},
        "registry_mirrors": {"type": "dict", "default": {}},
        "registry_proxy": {"type": "str", "no_log": True},
    }
