# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How to reach registries: the `registry_…` options of modules, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.fleet.images.plugins.module_utils._registry_http import (
    RegistryError,
    clean,
    host_of,
)


@dataclass(frozen=True)
class Options:
    """How to reach registries; the names are those of the modules' `registry_…` options.

    `mirrors`: a registry's name -> base URLs, tried in their order before the registry itself.
    `username` and `password` are for the registries that images name, never for a mirror of
    another name. `stall_timeout`: seconds of silence after which an answer counts as lost.
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    validate_certs: bool = True
    ca_path: str | None = None
    mirrors: Mapping[str, Sequence[str]] = field(default_factory=dict)
    proxy: str | None = field(default=None, repr=False)
    stall_timeout: float = 60.0


def options_from(params: Mapping[str, Any]) -> Options:
    """The options that a module was called with; raises RegistryError for unusable ones."""
    mirrors = {}
    for name, urls in (params["registry_mirrors"] or {}).items():
        mirrors[name] = [urls] if isinstance(urls, str) else list(urls or [])
        for url in mirrors[name]:
            _check_url(f"registry_mirrors, {name}", url)
    proxy = params["registry_proxy"]
    if proxy and urlsplit(proxy).scheme not in ("http", "https"):
        raise RegistryError(
            f"registry_proxy: wanted an http:// or https:// URL, not {clean(proxy)!r}"
        )
    if params["registry_password"] and not params["registry_username"]:
        raise RegistryError("registry_password is given without registry_username; give both")
    return Options(
        params["registry_username"],
        params["registry_password"],
        params["registry_validate_certs"],
        params["registry_ca_path"],
        mirrors,
        proxy,
    )


def _check_url(what: str, url: Any) -> None:
    parts = urlsplit(str(url))
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise RegistryError(
            f"{what}: wanted the base URL of a mirror, as https://mirror.example/prefix, not"
            f" {clean(str(url))!r}"
        )
    if "@" in parts.netloc:
        raise RegistryError(
            f"{what}: a login in a mirror's URL is not supported; run docker login"
            f" {host_of(str(url))} for the user who runs this task"
        )
