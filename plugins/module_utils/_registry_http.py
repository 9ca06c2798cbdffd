# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTTP as registries need it: TLS, proxies, redirects, and errors that are one sentence.

Only the rooms of the registry protocol use this one. `requests` is imported when the first
connection is made, so that a host without it can still import every module.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from ansible_collections.fleet.images.plugins.module_utils._retry import Retryable
from ansible_collections.fleet.images.plugins.module_utils._sdk import import_requests

if TYPE_CHECKING:
    import requests

CHUNK = 1 << 20
USER_AGENT = "fleet.images"
CONNECT_TIMEOUT = 10.0
_REDIRECTS = 10
_REDIRECT_STATUSES = (301, 302, 303, 307, 308)
_USER_INFO = re.compile(r"(?<=//)[^/@\s]*@")
# The alerts and verdicts that only a peer that speaks TLS can cause.
_TLS_SPOKEN = ("ALERT", "CERTIFICATE", "UNSUPPORTED_PROTOCOL", "DH_KEY", "EE_KEY")


class RegistryError(Exception):
    """A registry did not do what was asked; the message is one sentence with the next step.

    `status`: the HTTP status that it answered with, None where there was no answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class NotFound(RegistryError):
    """The registry has no such repository, tag, manifest or blob."""


class Refused(RegistryError):
    """The registry or its token server refused access."""


class Unavailable(RegistryError, Retryable):
    """The registry cannot answer now, and may at the next try."""

    def __init__(
        self,
        message: str,
        status: int | None = None,
        *,
        after: float | None = None,
        progress: bool = False,
    ) -> None:
        Retryable.__init__(self, message, after=after, progress=progress)
        self.status = status


@dataclass(frozen=True)
class Ask:
    """One HTTP request. `what` is the subject of the sentence that tells of its failure.

    `body` gives what is sent, anew for each try: bytes, or an iterable of bytes with a length.
    `good`: the statuses of a success.
    """

    method: str
    url: str
    what: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)
    body: Callable[[], Any] | None = field(default=None, repr=False)
    good: tuple[int, ...] = (200, 206)

    def to(self, url: str, method: str) -> Ask:
        """The request that a redirect asks for; a login stays with the origin it was meant for."""
        headers = dict(self.headers)
        if origin(url) != origin(self.url):
            headers.pop("Authorization", None)
        return replace(self, method=method, url=url, headers=headers)


class Transport:
    """Sessions for several threads at a time, one for each thread and kind of trust."""

    def __init__(
        self,
        *,
        validate_certs: bool = True,
        ca_path: str | None = None,
        proxy: str | None = None,
        stall_timeout: float = 60.0,
    ) -> None:
        """`ca_path`: file or directory of PEM certificates, trusted beside the system's.

        `proxy`: an http(s) URL, else the environment's; NO_PROXY holds for both.
        `stall_timeout`: seconds of silence after which an answer counts as lost.
        """
        self._validate_certs = validate_certs
        self._ca_path = ca_path
        self._proxies = {"http": proxy, "https": proxy} if proxy else {}
        self._timeout = (CONNECT_TIMEOUT, stall_timeout)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._contexts: dict[bool, ssl.SSLContext] = {}
        self._sessions: list[requests.Session] = []

    def send(self, ask: Ask) -> requests.Response:
        """The answer, whatever its status, with its body still to be read.

        Follows redirects by hand: a login never goes to another origin (RFC 9110, section 15.4).
        Raises Unavailable, RegistryError; SdkError where there is no `requests`.
        """
        for _hop in range(_REDIRECTS):
            response = self._send(ask)
            target = response.headers.get("Location", "")
            # What is sent goes on only where the status says so (RFC 9110, section 15.4).
            stays = ask.form or (ask.body and response.status_code not in (307, 308))
            if response.status_code not in _REDIRECT_STATUSES or not target or stays:
                return response
            self.finish(response)
            method = "GET" if response.status_code == 303 and ask.method != "HEAD" else ask.method
            ask = ask.to(urljoin(ask.url, target), method)
        raise RegistryError(
            f"{ask.what}: {host_of(ask.url)} redirects in a circle; ask the registry's owner"
        )

    def _send(self, ask: Ask) -> requests.Response:
        library = import_requests()
        try:
            return self._session(self.is_insecure(ask.url)).request(
                ask.method,
                ask.url,
                # Blobs have to arrive as they are stored, or neither digest nor Range fits.
                headers={**ask.headers, "Accept-Encoding": "identity"},
                data=ask.body() if ask.body else ask.form,
                # A callable, since `requests` else takes a login from ~/.netrc in place of ours.
                auth=_as_it_is,
                proxies=self._proxies_for(ask.url),
                # While a body is sent, urllib3 takes the first one for the limit on silence.
                timeout=(self._timeout[1],) * 2 if ask.body else self._timeout,
                verify=not self.is_insecure(ask.url),
                stream=True,
                allow_redirects=False,
            )
        except (library.exceptions.RequestException, OSError, ValueError) as error:
            raise explain(error, ask, self._timeout[1]) from error

    def chunks(self, response: requests.Response, ask: Ask) -> Iterator[bytes]:
        """The body as it was sent, at most CHUNK bytes at a time; raises Unavailable."""
        from urllib3.exceptions import HTTPError  # comes with requests

        try:
            while True:
                chunk = response.raw.read(CHUNK, decode_content=False)
                if not chunk:
                    return
                yield chunk
        except (HTTPError, OSError) as error:
            raise explain(error, ask, self._timeout[1]) from error
        finally:
            response.close()

    def finish(self, response: requests.Response) -> None:
        """Leaves an answer behind whose body does not matter.

        A short body is read, since closing it unread would close the connection, and the next
        request would need a new one.
        """
        from urllib3.exceptions import HTTPError

        with contextlib.suppress(HTTPError, OSError):
            while response.raw.read(CHUNK, decode_content=False) and response.raw.tell() < CHUNK:
                pass
        response.close()

    def is_insecure(self, url: str) -> bool:
        """Whether the certificate of this URL's host is not verified, as Docker itself decides.

        All of them with `validate_certs: false`, else those of the loopback interface.
        """
        return not self._validate_certs or _is_loopback(urlsplit(url).hostname or "")

    def close(self) -> None:
        """Closes every connection."""
        with self._lock:
            for session in self._sessions:
                session.close()

    def _proxies_for(self, url: str) -> dict[str, str]:
        utils = import_requests().utils
        bypass = not self._proxies or utils.should_bypass_proxies(url, no_proxy=None)
        # `requests` sends even loopback registries to a proxy that the environment names.
        if _is_loopback(urlsplit(url).hostname or ""):
            return {"no_proxy": "*"}
        return {} if bypass else dict(self._proxies)

    def _session(self, insecure: bool) -> requests.Session:
        sessions: dict[bool, requests.Session] = self._local.__dict__.setdefault("sessions", {})
        if insecure not in sessions:
            with self._lock:
                session = _new_session(self._context(insecure))
                if insecure:
                    _be_quiet()
                self._sessions.append(session)
            sessions[insecure] = session
        return sessions[insecure]

    def _context(self, insecure: bool) -> ssl.SSLContext:
        if insecure not in self._contexts:
            self._contexts[insecure] = _new_context(insecure, self._ca_path)
        return self._contexts[insecure]


def _as_it_is(request: Any) -> Any:
    return request


def _be_quiet() -> None:
    """No warning for each request: not to verify is what the user, or Docker's rule, decided."""
    import urllib3

    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)


def _new_session(context: ssl.SSLContext) -> requests.Session:
    library = import_requests()

    class Adapter(library.adapters.HTTPAdapter):  # type: ignore[name-defined,misc]
        """Hands our TLS context to urllib3, and keeps `requests` from adding its own roots."""

        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, ssl_context=context, **kwargs)

        def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
            return super().proxy_manager_for(proxy, ssl_context=context, **kwargs)

        def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
            conn.cert_reqs = "CERT_REQUIRED" if verify else "CERT_NONE"

    session: requests.Session = library.Session()
    session.headers["User-Agent"] = USER_AGENT
    session.mount("https://", Adapter())
    return session


def _new_context(insecure: bool, ca_path: str | None) -> ssl.SSLContext:
    """What to trust: the system's store, the roots that come with `requests`, and `ca_path`."""
    context = ssl.create_default_context()
    # Engines take the certificates of older private authorities, Python 3.13 by default does not.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    context.load_verify_locations(import_requests().certs.where())
    for file in _ca_files(ca_path) if ca_path else ():
        try:
            context.load_verify_locations(file)
        except (OSError, ssl.SSLError) as error:
            raise RegistryError(
                f"registry_ca_path: wanted PEM certificates, {file} cannot be used as such"
                f" ({error}); mend the file or its path"
            ) from error
    return context


def _ca_files(ca_path: str) -> list[str]:
    """The file itself, or a directory's *.crt and *.pem: no hashed names are wanted there."""
    if not os.path.isdir(ca_path):
        return [ca_path]
    names = sorted(name for name in os.listdir(ca_path) if name.endswith((".crt", ".pem")))
    if not names:
        raise RegistryError(
            f"registry_ca_path: wanted *.crt or *.pem files in the directory {ca_path}, none is"
            " there; put the authority's certificate there"
        )
    return [os.path.join(ca_path, name) for name in names]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: what a login is meant for (RFC 9110, section 4.3.1)."""
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname or "", parts.port or default


def host_of(url: str) -> str:
    """`host` or `host:port` of a URL, without a login that stands in it."""
    return urlsplit(url).netloc.rpartition("@")[2]


def clean(text: str, limit: int = 300) -> str:
    """A foreign text made fit for a message: one line, printable, no login in a URL."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    line = _USER_INFO.sub("", line)
    return line if len(line) <= limit else f"{line[:limit]}…"


def speaks_no_tls(error: BaseException) -> bool:
    """Whether a failed TLS connection tells that the port may speak plain http instead.

    True as well for a connection that the other side refused or closed: without a port in the
    registry's name, http is another port.
    """
    for cause in _causes(error):
        if isinstance(cause, (socket.gaierror, TimeoutError)):
            return False
        if isinstance(cause, ssl.SSLError):
            reason = str(cause.reason or cause).upper()
            return not any(word in reason for word in _TLS_SPOKEN)
        if isinstance(cause, ConnectionError):
            return True
    return False


def explain(error: BaseException, ask: Ask, stall_timeout: float) -> RegistryError:
    """The exception of a library as one sentence; Unavailable where another try may help."""
    host, causes = host_of(ask.url), list(_causes(error))
    names = {type(cause).__name__ for cause in causes}
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return RegistryError(
                f"{ask.what}: the TLS certificate of {host} is not trusted"
                f" ({clean(cause.verify_message)}); name its authority's certificate in"
                " registry_ca_path"
            )
        if isinstance(cause, socket.gaierror):
            kind = RegistryError if cause.errno == socket.EAI_NONAME else Unavailable
            return kind(
                f"{ask.what}: the name of {_peer(host, names)} does not resolve"
                f" ({cause.strerror}); check it, and the DNS of this host"
            )
    if any("Timeout" in name for name in names):
        return _explain_timeout(ask, host, names, stall_timeout)
    for cause in causes:
        if isinstance(cause, ssl.SSLError) and ask.url.startswith("https:"):
            kind = RegistryError if cause.reason else Unavailable
            return kind(
                f"{ask.what}: no TLS connection with {_peer(host, names)}"
                f" ({clean(cause.reason or str(cause))}); where it speaks plain http, set"
                " registry_validate_certs: false"
            )
    if names & {"InvalidURL", "InvalidSchema", "MissingSchema", "LocationParseError", "ValueError"}:
        return RegistryError(
            f"{ask.what}: {clean(ask.url)} is no usable address; check its spelling"
        )
    return Unavailable(
        f"{ask.what}: the connection to {_peer(host, names)} failed ({_innermost(causes)}); check"
        " that it runs and that this host may reach it"
    )


def _explain_timeout(ask: Ask, host: str, names: set[str], stall_timeout: float) -> Unavailable:
    connecting = names & {"ConnectTimeout", "ConnectTimeoutError", "NewConnectionError"}
    seconds = CONNECT_TIMEOUT if connecting else stall_timeout
    doing = "could not be reached within" if connecting else "sent nothing for"
    return Unavailable(
        f"{ask.what}: {_peer(host, names)} {doing} {seconds:g} s; check that it runs and that this"
        " host may reach it"
    )


def _peer(host: str, names: set[str]) -> str:
    return f"the proxy for {host}" if "ProxyError" in names else host


def _innermost(causes: list[BaseException]) -> str:
    for cause in reversed(causes):
        if isinstance(cause, OSError) and cause.strerror:
            return clean(cause.strerror)
    return clean(str(causes[-1]))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and what led to it, from the outside in: libraries wrap in several ways."""
    seen: set[int] = set()
    todo: list[BaseException] = [error]
    while todo:
        cause = todo.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        inner = [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]
        todo.extend(item for item in inner if isinstance(item, BaseException))
