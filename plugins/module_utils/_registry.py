# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one door to registries: names to digests, manifests and blobs, through mirrors if wished.

Protocol: https://github.com/opencontainers/distribution-spec/blob/main/spec.md. Everything that
has a digest is verified here, or by the sink that it is written to.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import urlsplit

from ansible_collections.fleet.images.plugins.module_utils._layout import digest_of
from ansible_collections.fleet.images.plugins.module_utils._lock import Blob
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    DEFAULT_REGISTRY,
    InvalidReference,
    Reference,
    check_digest,
)
from ansible_collections.fleet.images.plugins.module_utils._registry_auth import (
    Authorizer,
    Login,
    docker_config_login,
    read,
    registry_message,
)
from ansible_collections.fleet.images.plugins.module_utils._registry_http import (
    CHUNK,
    Ask,
    NotFound,
    Refused,
    RegistryError,
    Transport,
    Unavailable,
    clean,
    host_of,
    origin,
    speaks_no_tls,
)
from ansible_collections.fleet.images.plugins.module_utils._registry_options import Options
from ansible_collections.fleet.images.plugins.module_utils._retry import (
    Retrier,
    is_transient,
    retry_after,
)

if TYPE_CHECKING:
    import requests

__all__ = [
    "INDEXES",
    "MANIFESTS",
    "NotFound",
    "Refused",
    "Registry",
    "RegistryError",
    "Sink",
    "Unavailable",
    "media_type_of",
]

T = TypeVar("T")

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES = (OCI_INDEX, DOCKER_LIST)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
ACCEPT = ", ".join((*INDEXES, *MANIFESTS))
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"

# Registries may refuse larger ones (distribution-spec, "Pushing Manifests").
MANIFEST_LIMIT = 4 << 20
_HUB = "registry-1.docker.io"
_CONTENT_RANGE = re.compile(r"bytes (\d+)-")


class Sink(Protocol):
    """Where a blob goes, as `_layout.BlobWriter`."""

    @property
    def offset(self) -> int:
        """Bytes that are there already."""

    def restart(self) -> None:
        """Forgets what is there."""

    def write(self, chunk: bytes) -> None:
        """Appends."""


class Endpoint:
    """One place that serves a registry: the registry itself, or a mirror of it."""

    def __init__(self, url: str, authorizer: Authorizer, is_mirror: bool, either: bool) -> None:
        """`either`: plain http is to be tried where the port speaks no TLS."""
        parts = urlsplit(url)
        # A path that begins with /v2 is whole; to others the API's own prefix is added.
        path = parts.path.rstrip("/")
        self._path = path if path.startswith("/v2/") else f"{path.removesuffix('/v2')}/v2"
        self._scheme = parts.scheme
        self.host = parts.netloc
        self.authorizer = authorizer
        self.is_mirror = is_mirror
        self.either = either
        self.is_down = False

    @property
    def base(self) -> str:
        """The URL that repositories' names are added to."""
        return f"{self._scheme}://{self.host}{self._path}"

    def fall_back(self) -> None:
        """From now on plain http."""
        self._scheme = "http"


class Registry:
    """Reads images' parts from the registries that their names name. Thread-safe."""

    def __init__(
        self,
        options: Options | None = None,
        retrier: Retrier | None = None,
        actions: str = "pull",
    ) -> None:
        """`actions`: the rights that are asked of token servers, as `pull,push`."""
        self._options = options or Options()
        self._actions = actions
        self._retrier = retrier or Retrier()
        self._transport = Transport(
            validate_certs=self._options.validate_certs,
            ca_path=self._options.ca_path,
            proxy=self._options.proxy,
            stall_timeout=self._options.stall_timeout,
        )
        self._lock = threading.Lock()
        self._endpoints: dict[str, list[Endpoint]] = {}
        self._local = threading.local()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_unused: object) -> None:
        self._transport.close()

    @property
    def repeats(self) -> int:
        """How many tries of this thread so far were not the first one."""
        return int(getattr(self._local, "repeats", 0))

    def resolve(self, reference: Reference) -> Blob:
        """The digest, size and media type of the manifest or index that a tag (or digest) names.

        Raises NotFound, Refused, Unavailable, RegistryError.
        """
        return self.retry(lambda: self._resolve(reference))

    def manifest(self, reference: Reference, digest: str) -> bytes:
        """A manifest or index as the registry keeps it, byte for byte, verified.

        Raises as `resolve`, and RegistryError for other content than that of the digest.
        """
        wanted = reference.pinned(digest)
        return self.retry(lambda: self._manifest(wanted)[0])

    def read_blob(self, reference: Reference, blob: Blob) -> bytes:
        """A small blob, as a config, verified; raises as `manifest`."""

        def attempt() -> bytes:
            ask, response = self._open(_blob_ask(reference, blob.digest), reference)
            content = read(self._transport, response, ask, blob.size)
            if len(content) < blob.size:
                raise _cut(ask, len(content), blob.size)
            return _verified(ask, content, blob.digest)

        return self.retry(attempt)

    def copy_blob(self, reference: Reference, blob: Blob, sink: Sink) -> int:
        """Writes a blob of any size to the sink, from the sink's offset; returns bytes received.

        Resumes after a cut with Range (RFC 9110, section 14), from the first byte where the
        registry knows no ranges. The sink verifies. Raises as `resolve`, and what the sink raises.
        """
        received = 0

        def attempt() -> None:
            nonlocal received
            received += self._copy_on(reference, blob, sink)

        if sink.offset < blob.size:
            self.retry(attempt)
        return received

    def answer(self, ask: Ask, reference: Reference, limit: int) -> tuple[bytes, Mapping[str, str]]:
        """Any small answer about a repository, `limit` bytes at most, and its headers.

        `ask.url` is the path below the API's base. Raises as `resolve`.
        """

        def attempt() -> tuple[bytes, Mapping[str, str]]:
            there, response = self._open(ask, reference)
            return read(self._transport, response, there, limit), response.headers

        return self.retry(attempt)

    def request(self, ask: Ask, reference: Reference) -> tuple[Ask, requests.Response]:
        """One try at the registry itself, never a mirror of it; raises for all but a success.

        `ask.url`: the path below the API's base, or a URL that the registry gave, which gets no
        login where it leads to another origin. Who asks reads or closes the answer.
        """
        endpoint = self._endpoints_of(reference.registry)[-1]
        if "://" not in ask.url:
            there = replace(ask, url=f"{endpoint.base}/{ask.url}")
            return self._ask(endpoint, there, reference.repository)
        if origin(ask.url) == origin(endpoint.base):
            return self._ask(endpoint, ask, reference.repository)
        response = self._transport.send(ask)
        if response.status_code not in ask.good:
            raise self._failure(endpoint, ask, response)
        return ask, response

    def finish(self, response: requests.Response) -> None:
        """Leaves an answer of `request` behind whose body does not matter."""
        self._transport.finish(response)

    def retry(self, attempt: Callable[[], T]) -> T:
        """What the work returns, after further tries where it raises Unavailable."""
        tries = 0

        def counted() -> T:
            nonlocal tries
            tries += 1
            return attempt()

        try:
            return self._retrier.call(counted).value
        finally:
            # Whatever it ends with: after two limits, "not found" was the third try.
            self._local.repeats = self.repeats + max(0, tries - 1)

    def _resolve(self, reference: Reference) -> Blob:
        ask = _manifest_ask("HEAD", reference)
        try:
            _ask, response = self._open(ask, reference)
        except Unavailable:
            raise
        except RegistryError as error:
            if error.status is None:
                raise
            # An answer to HEAD has no body: GET tells why, or works where HEAD is not served.
            content, media_type = self._manifest(reference)
        else:
            self._transport.finish(response)
            digest = response.headers.get("Docker-Content-Digest", "")
            size = response.headers.get("Content-Length", "")
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
            if _is_digest(digest) and size.isdigit() and media_type in (*INDEXES, *MANIFESTS):
                return Blob(digest, int(size), media_type)
            content, media_type = self._manifest(reference)
        return Blob(digest_of(content), len(content), media_type)

    def _manifest(self, reference: Reference) -> tuple[bytes, str]:
        ask, response = self._open(_manifest_ask("GET", reference), reference)
        content = read(self._transport, response, ask, MANIFEST_LIMIT)
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and len(content) < int(length):
            raise _cut(ask, len(content), int(length))
        if reference.digest:
            _verified(ask, content, reference.digest)
        header = response.headers.get("Content-Type", "").partition(";")[0].strip()
        return content, media_type_of(ask.what, content, header)

    def _copy_on(self, reference: Reference, blob: Blob, sink: Sink) -> int:
        """One try from where the sink stands."""
        ask = _blob_ask(reference, blob.digest, sink.offset)
        try:
            ask, response = self._open(ask, reference)
        except RegistryError as error:
            if error.status != 416 or not sink.offset:
                raise
            sink.restart()
            raise Unavailable(str(error), 416) from error
        if sink.offset and response.status_code != 206:
            sink.restart()
        elif sink.offset and not _starts_at(response, sink.offset):
            response.close()
            sink.restart()
            raise Unavailable(f"{ask.what}: {host_of(ask.url)} sent another range; try it again")
        return self._pour(ask, response, blob, sink)

    def _pour(self, ask: Ask, response: requests.Response, blob: Blob, sink: Sink) -> int:
        before = sink.offset
        try:
            for chunk in self._transport.chunks(response, ask):
                sink.write(chunk)
        except Unavailable as error:
            error.progress = sink.offset - before >= CHUNK
            raise
        finally:
            response.close()
        if sink.offset < blob.size:
            raise _cut(ask, sink.offset, blob.size, sink.offset - before >= CHUNK)
        return sink.offset - before

    def _open(self, ask: Ask, reference: Reference) -> tuple[Ask, requests.Response]:
        """The first good answer of the mirrors and the registry, with what was really asked.

        `ask.url` is the path below the base URL.
        """
        failures: list[RegistryError] = []
        endpoints = self._endpoints_of(reference.registry)
        for endpoint in [one for one in endpoints if not one.is_down] or endpoints:
            there = replace(ask, url=f"{endpoint.base}/{ask.url}")
            try:
                return self._ask(endpoint, there, reference.repository)
            except RegistryError as error:
                endpoint.is_down = endpoint.is_mirror and error.status is None
                failures.append(error)
        if failures[-1].status is None:
            # With the registry out of reach too, a mirror that was down is worth another try.
            for endpoint in endpoints:
                endpoint.is_down = False
        raise _weigh(failures)

    def _ask(self, endpoint: Endpoint, ask: Ask, repository: str) -> tuple[Ask, requests.Response]:
        """The endpoint's answer, after a login if it wants one; raises for all but a success."""
        known = endpoint.authorizer.header(repository)
        ask, response = self._send(endpoint, ask, known)
        if response.status_code == 401 and _is_from(response, ask):
            challenge = response.headers.get("WWW-Authenticate", "")
            fresh = endpoint.authorizer.answer(ask, repository, challenge, known)
            if fresh:
                self._transport.finish(response)
                ask, response = self._send(endpoint, ask, fresh)
        if response.status_code in ask.good:
            return ask, response
        raise self._failure(endpoint, ask, response)

    def _send(
        self, endpoint: Endpoint, ask: Ask, authorization: str | None
    ) -> tuple[Ask, requests.Response]:
        headers = dict(ask.headers)
        if authorization:
            headers["Authorization"] = authorization
        ask = replace(ask, headers=headers)
        try:
            return ask, self._transport.send(ask)
        except RegistryError as error:
            # Not what the endpoint says by now: another thread may have found out meanwhile.
            was_tls = ask.url.startswith("https:")
            if not (endpoint.either and was_tls and speaks_no_tls(error)):
                raise
            plain = replace(ask, url=f"http:{ask.url.partition(':')[2]}")
            response = self._transport.send(plain)
            endpoint.fall_back()
            return plain, response

    def _failure(self, endpoint: Endpoint, ask: Ask, response: requests.Response) -> RegistryError:
        status = response.status_code
        try:
            content = read(self._transport, response, ask, MANIFEST_LIMIT)
        except RegistryError:
            content = b""
        answer = f"{host_of(str(response.url))} answered: {registry_message(content, status)}"
        if is_transient(status):
            after = retry_after(response.headers.get("Retry-After"))
            wish = f", and asks to wait {after:g} s" if after else ""
            return Unavailable(f"{ask.what}: {answer}{wish}; try again later", status, after=after)
        if status == 404:
            return NotFound(
                f"{ask.what} is not there: {answer}; check the spelling of name and tag",
                status,
            )
        if status in (401, 403) and _is_from(response, ask):
            refusal = endpoint.authorizer.refusal()
            said = registry_message(content, status)
            return Refused(f"{ask.what}: {endpoint.host} refused access ({said}) {refusal}", status)
        return RegistryError(f"{ask.what}: {answer}; ask the registry's owner", status)

    def _endpoints_of(self, registry: str) -> list[Endpoint]:
        with self._lock:
            if registry not in self._endpoints:
                urls = [url.rstrip("/") for url in self._options.mirrors.get(registry, ())]
                mirrors = [self._endpoint(url, registry, True) for url in urls]
                host = _HUB if registry == DEFAULT_REGISTRY else registry
                own = self._endpoint(f"https://{host}", registry, False)
                self._endpoints[registry] = [*mirrors, own]
            return self._endpoints[registry]

    def _endpoint(self, url: str, registry: str, is_mirror: bool) -> Endpoint:
        host = urlsplit(url).netloc
        # A mirror under the registry's own name is the registry, reached in another way.
        is_own = not is_mirror or host == registry
        options = self._options

        def look_up() -> Login:
            if is_own and options.username:
                return Login(options.username, options.password or "")
            return docker_config_login(registry if is_own else host)

        # What a mirror's URL says was written on purpose: there is nothing to guess.
        either = not is_mirror and self._transport.is_insecure(url)
        authorizer = Authorizer(host, look_up, self._transport, not is_own, self._actions)
        return Endpoint(url, authorizer, is_mirror, either)


def media_type_of(what: str, content: bytes, header: str = "") -> str:
    """The media type of a manifest or index.

    What the document says of itself, else the registry's Content-Type, else what it looks like
    (the field is optional: image-spec, manifest.md). `what`: the image, for messages.
    Raises RegistryError for a schema 1 manifest and for what is no manifest.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise RegistryError(f"{what}: wanted an image manifest, the registry sent no JSON object")
    if document.get("schemaVersion") == 1 or header.startswith(SCHEMA_1):
        raise RegistryError(
            f"{what}: the registry has only a schema 1 manifest, which no current Engine takes;"
            " push the image anew with a current Docker"
        )
    known = (*INDEXES, *MANIFESTS)
    looks = OCI_INDEX if "manifests" in document else OCI_MANIFEST if "layers" in document else ""
    found = str(document.get("mediaType") or (header if header in known else looks))
    if found not in known:
        raise RegistryError(
            f"{what}: wanted an image manifest or index, the registry has"
            f" {clean(found or header or 'something else')}; it is no image"
        )
    return found


def _weigh(failures: Sequence[RegistryError]) -> RegistryError:
    """The one failure that is told, with the others, and that decides whether to try again.

    The registry's own, if it answered or may answer at the next try. Else it is out of reach, as
    where only mirrors are meant to be used: then what a mirror said.
    """
    own = failures[-1]
    answered = [one for one in failures if one.status is not None]
    hopeful = [one for one in failures if isinstance(one, Unavailable)]
    told = own if own in (*answered, *hopeful) else [*hopeful, *answered, own][0]
    # Where the registry is out of reach by design, what its mirror said is what helps.
    others = [one for one in failures if one is not told]
    texts = sorted((told, *others), key=lambda one: one.status is None)
    told.args = ("; besides, ".join(str(one) for one in texts),)
    return told


def _manifest_ask(method: str, reference: Reference) -> Ask:
    path = f"{reference.repository}/manifests/{reference.digest or reference.tag}"
    return Ask(method, path, str(reference), {"Accept": ACCEPT})


def _blob_ask(reference: Reference, digest: str, offset: int = 0) -> Ask:
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    path = f"{reference.repository}/blobs/{check_digest(digest)}"
    return Ask("GET", path, f"{reference.name}, blob {digest}", headers)


def _starts_at(response: requests.Response, offset: int) -> bool:
    match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    return bool(match) and int(match[1]) == offset if match else False


def _is_from(response: requests.Response, ask: Ask) -> bool:
    """Whether the answer is the endpoint's own: a login is no answer to a redirect's target."""
    return origin(str(response.url)) == origin(ask.url)


def _is_digest(text: str) -> bool:
    try:
        check_digest(text)
    except InvalidReference:
        return False
    return True


def _verified(ask: Ask, content: bytes, digest: str) -> bytes:
    found = digest_of(content)
    if found != digest:
        raise RegistryError(
            f"{ask.what}: wanted content of {digest}, {host_of(ask.url)} sent {found}; nothing was"
            " kept, ask the registry's owner"
        )
    return content


def _cut(ask: Ask, received: int, size: int, progress: bool = False) -> Unavailable:
    return Unavailable(
        f"{ask.what}: {host_of(ask.url)} ended the transfer after {received} of {size} bytes; run"
        " it again, it goes on from there",
        progress=progress,
    )
