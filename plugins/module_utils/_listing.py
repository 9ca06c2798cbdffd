# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a registry lists: the tags of a repository, and its catalogue, page by page.

Tags: https://github.com/opencontainers/distribution-spec/blob/main/spec.md, "Listing Tags"; the
catalogue: https://distribution.github.io/distribution/spec/api/#catalog. The next page stands in a
Link header (RFC 8288).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.fleet.images.plugins.module_utils._reference import Reference
from ansible_collections.fleet.images.plugins.module_utils._registry import Registry, RegistryError
from ansible_collections.fleet.images.plugins.module_utils._registry_http import Ask, clean

_PAGE = 1000
# Some registries list all at once: names of 255 characters, some ten thousand of them.
_PAGE_LIMIT = 16 << 20
_PAGES = 10_000
_LINK = re.compile(r"<([^>]*)>((?:\s*;\s*[^,;=]+(?:=(?:\"[^\"]*\"|[^,;\"]*))?)*)")
_NEXT = re.compile(r";\s*rel\s*=\s*(?:\"(?:[^\"]*\s)?next(?:\s[^\"]*)?\"|next\s*(?:;|\Z))", re.I)
# What registries answer that have a catalogue for nobody, or for others.
_NO_CATALOGUE = (400, 401, 403, 404, 405, 501)


def tags(registry: Registry, reference: Reference) -> list[str]:
    """All tags of a repository, in the registry's order; raises RegistryError."""
    return _all(registry, reference, f"{reference.repository}/tags/list", "tags", reference.name)


def catalogue(registry: Registry, host: str) -> list[str]:
    """All repositories of a registry, without its name, in its order; raises RegistryError."""
    what = f"the catalogue of {host}"
    try:
        return _all(registry, Reference(host, ""), "_catalog", "repositories", what)
    except RegistryError as error:
        if error.status not in _NO_CATALOGUE:
            raise
        step = "where a registry gives its catalogue to nobody, name its repositories yourself"
        error.args = (f"{error}; {step} (repositories)",)
        raise


def _all(registry: Registry, reference: Reference, path: str, key: str, what: str) -> list[str]:
    found: list[str] = []
    query, seen = f"n={_PAGE}", set[str]()
    while query not in seen:
        seen.add(query)
        ask = Ask("GET", f"{path}?{query}" if query else path, what)
        try:
            content, headers = registry.answer(ask, reference, _PAGE_LIMIT)
        except RegistryError as error:
            # Pages of this size may be more than it gives: then those of its own size.
            if error.status != 400 or len(seen) > 1:
                raise
            query = ""
            continue
        found += _names(content, key, what)
        link = headers.get("Link", "")
        following = next_query(link)
        if following is None:
            return found
        query = following
        if len(seen) > _PAGES:
            break
    raise RegistryError(
        f"{what}: wanted an end of its pages, after {len(seen)} of them the registry leads to"
        f" {clean(query)!r}; ask the registry's owner"
    )


def next_query(link: str) -> str | None:
    """The query of the next page in a Link header; None where there is no such page.

    Only the query counts: a registry behind a proxy may give a host that nobody reaches, and a
    login belongs to the host that was asked.
    """
    for target, parameters in _LINK.findall(link):
        if _NEXT.search(parameters):
            return str(urlsplit(target).query)
    return None


def _names(content: bytes, key: str, what: str) -> list[str]:
    """The texts of one page. A repository without tags has null."""
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    names = (document.get(key) or []) if isinstance(document, Mapping) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RegistryError(
            f"{what}: wanted a list of {key}, the registry sent something else; check that its API"
            " is served there"
        )
    return names
