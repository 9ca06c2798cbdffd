# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one door to Docker: connection, facts, holdings, and the few calls that change an Engine."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import _holdings, _stream
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    Reference,
    parse_platform,
    platform_of,
)
from ansible_collections.fleet.images.plugins.module_utils._sdk import import_requests, import_sdk

DEFAULT_HOST = "unix:///var/run/docker.sock"
SNAPSHOTTER = "io.containerd.snapshotter.v1"
# From this API version on, GET /images/json?manifests=1 says which manifests are available.
MANIFESTS_API = (1, 47)
# The oldest API of the Engines that are supported (20.10).
FIRST_API = "1.41"


class EngineError(Exception):
    """The Engine cannot be reached or refuses; the message keeps the daemon's own words.

    `words`: these alone. `lost`: whether there was no answer at all, or it broke off. `status`:
    that of the HTTP answer, None without one.
    """

    def __init__(
        self, message: str, words: str = "", lost: bool = False, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.words = words or message
        self.lost = lost
        self.status = status


@dataclass(frozen=True)
class Facts:
    """What an Engine is. `data_path` is the directory whose file system holds the images."""

    version: str
    api_version: str
    store: str
    driver: str
    platform: str
    data_path: str
    free: int | None

    def as_dict(self) -> dict[str, Any]:
        """The facts as modules return them; `free` in bytes, null where it cannot be known."""
        return asdict(self)


class Engine:
    """A connection to one Engine.

    `options` are the module options of the engine fragment: docker_host, tls, validate_certs,
    ca_path, client_cert, client_key, tls_hostname, api_version, timeout, use_ssh_client.
    Raises EngineError where it does not answer, SdkError where the Docker SDK is missing.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self.host = str(options.get("docker_host") or DEFAULT_HOST)
        self._sdk = import_sdk()
        self._errors: tuple[type[Exception], ...] = (
            self._sdk.errors.DockerException,
            import_requests().exceptions.RequestException,
            OSError,
        )
        self._api = self._connect(int(options.get("timeout") or 60))
        self.facts = self._read_facts()

    def _connect(self, timeout: int) -> Any:
        version = self._options.get("api_version") or "auto"
        named = self._options.get("tls_hostname")
        try:
            api = self._sdk.APIClient(
                base_url=self.host,
                # With a host name of its own the SDK cannot connect before the adapter is there.
                version=FIRST_API if named else version,
                timeout=timeout,
                tls=self._tls(),
                use_ssh_client=bool(self._options.get("use_ssh_client")),
            )
            if named:
                api.mount("https://", _named_adapter(str(named)))
                api._version = api._retrieve_server_version() if version == "auto" else version
            return api
        except self._errors as error:
            raise EngineError(
                f"the Engine at {self.host}: wanted an answer, found none ({_reason(error)}); start"
                " it (systemctl start docker), or set docker_host",
                lost=True,
            ) from error

    def _tls(self) -> Any:
        options = self._options
        if not options.get("tls") and not options.get("validate_certs"):
            return False
        ca, cert, key = (
            options.get(name) or _from_cert_path(file)
            for name, file in (
                ("ca_path", "ca.pem"),
                ("client_cert", "cert.pem"),
                ("client_key", "key.pem"),
            )
        )
        return self._sdk.tls.TLSConfig(
            client_cert=(cert, key) if cert and key else None,
            ca_cert=ca,
            verify=bool(options.get("validate_certs")),
        )

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            words = _words(error)
            raise EngineError(
                f"the Engine at {self.host}: {what} was wanted, it said: {words}",
                words,
                lost=not isinstance(error, self._sdk.errors.APIError),
                status=getattr(getattr(error, "response", None), "status_code", None),
            ) from error

    def _get(self, path: str, **params: Any) -> Any:
        with self._asking(f"GET {path}"):
            api = self._api
            return api._result(api._get(api._url(path), params=params), json=True)

    def get(self, path: str, *names: str, **params: Any) -> Any:
        """The JSON that GET of a path answers; `{0}` and so on in it stand for the names.

        Raises EngineError.
        """
        return self._send("GET", path, names, params)

    def post(self, path: str, *names: str, body: Any = None, **params: Any) -> Any:
        """As `get`, for a POST, of JSON where there is a body; None where the answer has none."""
        return self._send("POST", path, names, params, **({"json": body} if body else {}))

    def delete(self, path: str, *names: str, **params: Any) -> Any:
        """As `post`, for a DELETE."""
        return self._send("DELETE", path, names, params)

    def _send(
        self, method: str, path: str, names: Sequence[str], params: Any, **content: Any
    ) -> Any:
        with self._asking(f"{method} {path.format(*names)}"):
            api = self._api
            send = {"GET": api._get, "POST": api._post, "DELETE": api._delete}[method]
            answer = send(api._url(path, *names), params=params, **content)
            api._raise_for_status(answer)
            return answer.json() if answer.content else None

    def logs(self, container: str, lines: int = 5) -> bytes:
        """The last lines that a container wrote; raises EngineError."""
        with self._asking(f"the log of {container}"):
            content: bytes = self._api.logs(container, tail=lines)
            return content

    def speaks(self, version: Sequence[int]) -> bool:
        """Whether the API that is spoken is of this version (major, minor) or newer."""
        return tuple(map(int, self._api.api_version.split("."))) >= tuple(version)

    def _read_facts(self) -> Facts:
        info, version = self._get("/info"), self._get("/version")
        driver_status = dict(info.get("DriverStatus") or [])
        containerd = driver_status.get("driver-type") == SNAPSHOTTER
        data_path = _containerd_root(info) if containerd else str(info["DockerRootDir"])
        return Facts(
            version=str(version["Version"]),
            api_version=str(version["ApiVersion"]),
            store=_holdings.CONTAINERD if containerd else _holdings.CLASSIC,
            driver=str(info.get("Driver", "")),
            platform=parse_platform(f"{info['OSType']}/{info['Architecture']}"),
            data_path=data_path,
            free=_free(data_path) if self.host.startswith("unix://") else None,
        )

    @property
    def tells_manifests(self) -> bool:
        """Whether the Engine says which manifests are available, in the API that is spoken."""
        return self.speaks(MANIFESTS_API)

    def listed(self) -> list[Mapping[str, Any]]:
        """All images as the Engine lists them, with their manifests where it tells of them."""
        told = self.facts.store == _holdings.CONTAINERD and self.tells_manifests
        found: list[Mapping[str, Any]] = self._get(
            "/images/json", all=1, **({"manifests": 1} if told else {})
        )
        return found

    def holdings(self, known: Sequence[Mapping[str, Any]] = ()) -> _holdings.Holdings:
        """What the Engine has. `known`: the bastion's blob lists, for the containerd store.

        One call, and one more per image where the API tells too little in its list.
        """
        platform, images = self.facts.platform, self.listed()
        if self.facts.store == _holdings.CONTAINERD and self.tells_manifests:
            return _holdings.read_containerd(platform, images, known)
        inspected = {image["Id"]: self.inspect(image["Id"]) for image in images}
        found = {id_: one for id_, one in inspected.items() if one is not None}
        if self.facts.store == _holdings.CLASSIC:
            return _holdings.read_classic(platform, images, found.values())
        return _holdings.read_old_containerd(platform, images, found, known)

    def platforms(self) -> dict[str, list[str]] | None:
        """Image ID -> the platforms that are there whole; None where the Engine does not tell."""
        if self.facts.store == _holdings.CLASSIC or not self.tells_manifests:
            return None
        return {
            image["Id"]: [
                platform_of(one["ImageData"]["Platform"])
                for one in image.get("Manifests") or ()
                if one.get("Kind") == "image" and one.get("Available")
            ]
            for image in self._get("/images/json", all=1, manifests=1)
        }

    def inspect(self, image_id: str) -> Mapping[str, Any] | None:
        """One image as the Engine describes it, None where it has no such image."""
        with self._asking(f"image {image_id}"):
            try:
                found: Mapping[str, Any] = self._api.inspect_image(image_id)
            except self._sdk.errors.NotFound:
                return None
            return found

    def search(self, term: str, limit: int) -> list[Mapping[str, Any]]:
        """What Docker Hub finds, as the Engine asks it: name, description, star_count, is_official.

        `limit`: how many at most, up to 100. Raises EngineError.
        """
        return list(self._get("/images/search", term=term, limit=limit))

    def load(self, chunks: Iterable[bytes], stall_timeout: int) -> _stream.Told:
        """Streams an archive into the Engine and returns what its stream told.

        Over a connection of its own, so that several may run at once. `stall_timeout` in seconds
        limits the silence, not the whole. What the Engine tells is no proof: look afterwards.
        Raises EngineError, and whatever `chunks` raises.
        """
        api = self._connect(stall_timeout)
        with contextlib.closing(api), self._asking("a load"):
            answer = api._post(
                api._url("/images/load"),
                data=iter(chunks),
                params={"quiet": False},
                headers={"Content-Type": "application/x-tar"},
                stream=True,
            )
            api._raise_for_status(answer)
            return _stream.read(answer.iter_content(1 << 16))

    def digest(self, reference: Reference, login: str) -> str:
        """The digest that a registry has for a tag or digest, as this Engine reaches the registry.

        `login`: the value of X-Registry-Auth. Raises EngineError, with the registry's words.
        """
        with self._asking(f"the digest of {reference}"):
            api = self._api
            url = api._url("/distribution/{0}/json", str(reference))
            answer = api._result(api._get(url, headers={"X-Registry-Auth": login}), json=True)
            return str(answer["Descriptor"]["digest"])

    def pull(
        self, reference: Reference, login: str, stall_timeout: int, platform: str = ""
    ) -> Iterator[dict[str, Any]]:
        """Has the Engine pull an image; yields what its stream tells, errors among it.

        Over a connection of its own, so that several may run at once. `reference` has a tag or a
        digest, which counts. `login`: the value of X-Registry-Auth. `stall_timeout` in seconds
        limits the silence, not the whole. What the Engine tells is no proof. Raises EngineError.
        """
        api = self._connect(stall_timeout)
        params = {"fromImage": reference.name, "tag": reference.digest or reference.tag}
        with contextlib.closing(api), self._asking(f"a pull of {reference}"):
            answer = api._post(
                api._url("/images/create"),
                params={**params, "platform": platform} if platform else params,
                headers={"X-Registry-Auth": login},
                stream=True,
            )
            api._raise_for_status(answer)
            yield from _stream.messages(answer.iter_content(1 << 14))

    def export(self, image_ids: Sequence[str], stall_timeout: int) -> Iterator[bytes]:
        """One archive of these images, in pieces of at most 1 MiB, over a connection of its own.

        `stall_timeout` in seconds limits the silence: a classic store copies all the images before
        it sends the first byte. An error in the middle may stand as a text in the archive.
        Raises EngineError.
        """
        api = self._connect(stall_timeout)
        with contextlib.closing(api), self._asking("an export"):
            names = {"names": list(image_ids)}
            answer = api._get(api._url("/images/get"), params=names, stream=True)
            api._raise_for_status(answer)
            yield from answer.iter_content(1 << 20)

    def tag(self, image_id: str, reference: Reference) -> None:
        """Makes the reference (with a tag) name this image; raises EngineError."""
        with self._asking(f"tag {reference.tagged} on {image_id}"):
            self._api.tag(image_id, reference.name, reference.tag)

    def untag(self, reference: Reference) -> None:
        """Takes one name from an image; with its last name the image goes. Raises EngineError."""
        with self._asking(f"removal of the name {reference}"):
            self._api.remove_image(_one_name(reference), noprune=False)

    def remove(self, image_id: str) -> None:
        """Removes an image that has no tags; raises EngineError, also where containers use it."""
        with self._asking(f"removal of {image_id}"):
            self._api.remove_image(image_id)


def _one_name(reference: Reference) -> str:
    """`name@digest` or `name:tag`: an Engine takes a name with both for the digest alone."""
    if reference.digest:
        return f"{reference.name}@{reference.digest}"
    return reference.tagged


def _from_cert_path(file: str) -> str | None:
    """A file of the directory that DOCKER_CERT_PATH names, as the docker command reads it."""
    path = Path(os.environ.get("DOCKER_CERT_PATH", ""), file)
    return str(path) if os.environ.get("DOCKER_CERT_PATH") and path.exists() else None


def _named_adapter(name: str) -> Any:
    """A transport that expects this name in the Engine's certificate (`tls_hostname`)."""
    adapter = import_requests().adapters.HTTPAdapter

    class Named(adapter):  # type: ignore[misc, valid-type]
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> Any:
            return super().init_poolmanager(*args, assert_hostname=name, **kwargs)

    return Named()


def _containerd_root(info: Mapping[str, Any]) -> str:
    """Where containerd keeps its content; no API tells, so by who manages containerd.

    A containerd that dockerd started itself lives below DockerRootDir (moby, daemon/containerd).
    """
    address = str((info.get("Containerd") or {}).get("Address", ""))
    own = Path(str(info["DockerRootDir"])) / "containerd" / "daemon"
    if "/docker/containerd/" in address or (not address and own.is_dir()):
        return str(own)
    return "/var/lib/containerd"


def _free(path: str) -> int | None:
    """Bytes free for users on the file system of a path, None where it cannot be read."""
    here = Path(path)
    while not here.exists() and here != here.parent:
        here = here.parent
    try:
        return shutil.disk_usage(os.fspath(here)).free
    except OSError:
        return None


def _reason(error: Exception) -> str:
    """The system's own reason, below what the libraries wrap around it; else the words."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return str(inner.strerror)
        nested = [arg for arg in inner.args if isinstance(arg, BaseException)]
        inner = nested[0] if nested else inner.__cause__ or inner.__context__
    return _words(error)


def _words(error: Exception) -> str:
    """The daemon's own message where there is one, else the error's text, on one line."""
    explanation = getattr(error, "explanation", None)
    if isinstance(explanation, bytes):
        explanation = explanation.decode("utf-8", "replace")
    return " ".join(str(explanation or error or type(error).__name__).split())
