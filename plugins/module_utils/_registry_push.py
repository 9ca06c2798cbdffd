# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The write half of a registry: blobs and manifests into it, never into a mirror.

By https://github.com/opencontainers/distribution-spec/blob/main/spec.md, "Push". A blob is one
PATCH, in constant memory; after a cut the registry is asked how far it came, and gets the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlencode, urljoin, urlsplit, urlunsplit

from ansible_collections.fleet.images.plugins.module_utils._layout import digest_of
from ansible_collections.fleet.images.plugins.module_utils._lock import Blob
from ansible_collections.fleet.images.plugins.module_utils._reference import Reference
from ansible_collections.fleet.images.plugins.module_utils._registry import (
    ACCEPT,
    NotFound,
    Registry,
    RegistryError,
    Unavailable,
)
from ansible_collections.fleet.images.plugins.module_utils._registry_http import Ask, clean, host_of

if TYPE_CHECKING:
    import requests

_RANGE = re.compile(r"(?:bytes=)?0-(\d+)\Z")
# What says that an upload is forgotten, or stands elsewhere than was thought.
_LOST = (400, 404, 416)


class Source(Protocol):
    """Where a blob comes from; raises its own errors for what is damaged."""

    def read(self, offset: int) -> Iterator[bytes]:
        """The content from there on, in small pieces."""


class _Body:
    """What one PATCH sends; `sent` counts what went out."""

    def __init__(self, source: Source, offset: int, size: int) -> None:
        self._source = source
        self._offset = offset
        self._size = size
        self.sent = 0

    def __len__(self) -> int:
        return self._size - self._offset

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._source.read(self._offset):
            yield chunk
            self.sent += len(chunk)


def has_blob(registry: Registry, reference: Reference, digest: str) -> bool:
    """Whether the repository has the blob; raises RegistryError."""
    path = f"{reference.repository}/blobs/{digest}"
    return _has(registry, reference, Ask("HEAD", path, f"{reference.name}, blob {digest}"))


def has_manifest(registry: Registry, reference: Reference, digest: str) -> bool:
    """Whether the repository has the manifest or index; raises RegistryError."""
    path = f"{reference.repository}/manifests/{digest}"
    ask = Ask("HEAD", path, str(reference.pinned(digest)), {"Accept": ACCEPT})
    return _has(registry, reference, ask)


def digest_under(registry: Registry, reference: Reference) -> str:
    """The digest that a tag (or digest) names, '' where there is none; raises RegistryError.

    The registry is to be one without mirrors: a mirror may be behind.
    """
    try:
        return registry.resolve(reference).digest
    except NotFound:
        return ""


def put_manifest(registry: Registry, reference: Reference, content: bytes, media_type: str) -> None:
    """Puts a manifest or index under the tag of the reference, else under its digest.

    Raises RegistryError, also where the registry took it for something else.
    """
    digest = digest_of(content)
    path = f"{reference.repository}/manifests/{reference.tag or digest}"
    headers = {"Content-Type": media_type}
    what = str(reference if reference.tag else reference.pinned(digest))
    ask = Ask("PUT", path, what, headers, body=lambda: content, good=(200, 201, 202, 204))

    def attempt() -> None:
        there, response = registry.request(ask, reference)
        registry.finish(response)
        found = response.headers.get("Docker-Content-Digest", digest)
        if found != digest:
            raise RegistryError(
                f"{what}: wanted it pushed as {digest}, {host_of(there.url)} says {clean(found)};"
                " ask the registry's owner"
            )

    registry.retry(attempt)


class Upload:
    """One blob into one repository; `sent` is what went over the wire for it, in bytes."""

    def __init__(self, registry: Registry, reference: Reference, blob: Blob) -> None:
        self._registry = registry
        self._reference = reference
        self._blob = blob
        self._what = f"{reference.name}, blob {blob.digest}"
        self._location = ""
        self._began = False
        self._reached = 0
        self.sent = 0

    def mount(self, repository: str) -> bool:
        """Whether the registry took the blob over from another repository of its own.

        One that does not, or that does not let this login, begins an upload or refuses; either way
        `send` is next. Raises Unavailable.
        """
        query = urlencode({"mount": self._blob.digest, "from": repository})
        try:
            return self._registry.retry(lambda: self._start(f"?{query}")) == 201
        except Unavailable:
            raise
        except RegistryError:
            return False

    def send(self, source: Source) -> None:
        """Sends the blob; raises RegistryError, and what the source raises."""
        self._registry.retry(lambda: self._attempt(source))

    def _attempt(self, source: Source) -> None:
        """One try, from where the registry says that the one before came to."""
        offset, progress = 0, False
        resumed = self._began
        try:
            if resumed:
                offset = self._offset()
                progress = offset > self._reached
                self._reached = max(offset, self._reached)
            if not self._location:
                self._start()
            self._began = True
            if offset < self._blob.size:
                self._patch(source, offset)
            self._put()
        except Unavailable as error:
            error.progress = progress
            raise
        except RegistryError as error:
            if not resumed or error.status not in _LOST:
                raise
            self._location = ""
            raise Unavailable(str(error), error.status) from error

    def _start(self, query: str = "") -> int:
        """Begins an upload (202), or mounts (201); returns the status."""
        path = f"{self._reference.repository}/blobs/uploads/{query}"
        response = self._request(Ask("POST", path, self._what, good=(201, 202)))
        if response.status_code == 202 and not self._location:
            raise RegistryError(
                f"{self._what}: the registry began an upload without saying where (Location); ask"
                " its owner"
            )
        return int(response.status_code)

    def _offset(self) -> int:
        """How many bytes the registry has; a registry that cannot tell gets all of it anew."""
        ask = Ask("GET", self._location, self._what, good=(200, 202, 204))
        try:
            response = self._request(ask)
        except Unavailable:
            raise
        except RegistryError:
            self._location = ""
            return 0
        found = _RANGE.match(response.headers.get("Range", ""))
        # The last byte that is there; 0 stands for none as well, and then one byte goes twice.
        last = int(found[1]) if found else 0
        if last >= self._blob.size:
            self._location = ""
            return 0
        return last + 1 if last else 0

    def _patch(self, source: Source, offset: int) -> None:
        bodies: list[_Body] = []

        def body() -> _Body:
            bodies.append(_Body(source, offset, self._blob.size))
            return bodies[-1]

        headers = {"Content-Type": "application/octet-stream"}
        if offset:
            headers["Content-Range"] = f"{offset}-{self._blob.size - 1}"
        ask = Ask("PATCH", self._location, self._what, headers, body=body, good=(201, 202, 204))
        try:
            self._request(ask)
        finally:
            self.sent += sum(one.sent for one in bodies)

    def _put(self) -> None:
        """Ends the upload; the registry compares the digest."""
        parts = urlsplit(self._location)
        digest = urlencode({"digest": self._blob.digest})
        query = f"{parts.query}&{digest}" if parts.query else digest
        url = urlunsplit(parts._replace(query=query))
        self._request(Ask("PUT", url, self._what, good=(201, 204)))

    def _request(self, ask: Ask) -> requests.Response:
        """One request; takes up where the next one is to go."""
        there, response = self._registry.request(ask, self._reference)
        self._registry.finish(response)
        if response.headers.get("Location") and response.status_code == 202:
            self._location = _follow(there.url, response.headers["Location"])
        return response


def _follow(asked: str, location: str) -> str:
    """The URL that a Location header means.

    A registry behind a proxy may not know that it is reached by TLS: a login stays encrypted.
    """
    url = urljoin(asked, location)
    if asked.startswith("https:") and url.startswith("http:") and host_of(url) == host_of(asked):
        return f"https:{url.partition(':')[2]}"
    return url


def _has(registry: Registry, reference: Reference, ask: Ask) -> bool:
    def attempt() -> bool:
        _there, response = registry.request(ask, reference)
        registry.finish(response)
        return True

    try:
        return registry.retry(attempt)
    except NotFound:
        return False
