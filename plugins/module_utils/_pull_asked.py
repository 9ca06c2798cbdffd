# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a registry itself answers about an image, where an Engine keeps it to itself.

Engines do not pass on `Retry-After`; Engine 28 with the containerd store tells of a blob that was
refused with the registry's words alone, without the status that decides whether it may pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ansible_collections.fleet.images.plugins.module_utils import _trust
from ansible_collections.fleet.images.plugins.module_utils._documents import (
    choose,
    descriptor,
    parse_object,
    read_layers,
)
from ansible_collections.fleet.images.plugins.module_utils._lock import Blob
from ansible_collections.fleet.images.plugins.module_utils._reference import Reference
from ansible_collections.fleet.images.plugins.module_utils._registry import (
    INDEXES,
    Registry,
    RegistryError,
    Unavailable,
)
from ansible_collections.fleet.images.plugins.module_utils._registry_http import Ask
from ansible_collections.fleet.images.plugins.module_utils._registry_options import Options
from ansible_collections.fleet.images.plugins.module_utils._retry import Retrier

# Seconds for one answer: the Engine is what waits, this only explains.
_PATIENCE = 10.0


@dataclass(frozen=True)
class Answer:
    """`status` of the first answer that was no success, None for none; `after`: seconds to wait."""

    status: int | None = None
    after: float | None = None


def about(source: Reference, platform: str, login: tuple[str, str], blobs: bool) -> Answer:
    """What the registry answers to one try at an image; at each of its `blobs`, too, if wished.

    `login`: user name and password, '' for those of the Docker configuration. Where the registry
    is out of reach of this process, or has nothing against it, the answer is empty.
    """
    options = Options(
        login[0] or None,
        login[1] or None,
        ca_path=_authorities(source.registry),
        stall_timeout=_PATIENCE,
    )
    try:
        with Registry(options, Retrier(retries=0)) as registry:
            target = registry.resolve(source)
            for blob in _parts(registry, source, target, platform) if blobs else ():
                # By GET, of which next to nothing is read: where it leads to may know no HEAD.
                path = f"{source.repository}/blobs/{blob.digest}"
                ask = Ask("GET", path, f"{source.name}, blob {blob.digest}", {"Range": "bytes=0-0"})
                registry.request(ask, source)[1].close()
    except Unavailable as error:
        return Answer(error.status, error.after)
    except RegistryError as error:
        return Answer(error.status)
    return Answer()


def _parts(registry: Registry, source: Reference, target: Blob, platform: str) -> Iterator[Blob]:
    """Config and layers of an image, as an Engine of this platform asks for them."""
    name, digest = str(source), target.digest
    if target.media_type in INDEXES:
        index = parse_object(name, registry.manifest(source, digest))
        (digest,) = (blob.digest for blob in choose(name, index, [platform]).values())
    manifest = parse_object(name, registry.manifest(replace(source, tag=None), digest))
    yield descriptor(name, manifest.get("config"))
    yield from read_layers(name, manifest)


def _authorities(registry: str) -> str | None:
    """Where Engines of this host find the authorities of a registry; None without any."""
    place = _trust.CERTS / registry
    return str(place) if any(place.glob("*.crt")) else None
