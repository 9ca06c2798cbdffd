# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logins of registries: where they come from, Basic, and the token flow.

Token flow: https://distribution.github.io/distribution/spec/auth/token/ and .../auth/oauth/.
A login is looked up and sent only once a registry has asked for one.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from ansible_collections.fleet.images.plugins.module_utils._registry_http import (
    Ask,
    Refused,
    RegistryError,
    Transport,
    Unavailable,
    clean,
    host_of,
)
from ansible_collections.fleet.images.plugins.module_utils._retry import is_transient, retry_after
from ansible_collections.fleet.images.plugins.module_utils._sdk import import_sdk

_BODY = 1 << 20
# What the SDK lets through for a file of another shape; RuntimeError: for helpers, before 6.
_CONFIG_ERRORS = (RuntimeError, OSError, ValueError, LookupError, TypeError, AttributeError)
# How the SDK tells which helper it could not use.
_HELPER = re.compile(r"(docker-credential-[\w.-]+) (not installed|exited)")
_PARAMETER = re.compile(
    r"""\s*,?\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)"""  # a token: a scheme, or a parameter's name
    r"""(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+)))?"""
)


@dataclass(frozen=True)
class Login:
    """What a registry may be given: user and password, or an identity token; or neither.

    `problem` tells why the Docker config file gave none, for the message of a refusal.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    problem: str = ""

    @property
    def basic(self) -> str:
        """The header of the Basic scheme (RFC 7617)."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"

    def refusal(self, host: str, is_mirror: bool = False) -> str:
        """What was sent, and the next step: the end of a sentence about a refusal."""
        if self.username:
            return f"for the user {self.username!r}; check that name, its password and its rights"
        if self.identity_token:
            return f"for the identity token of the Docker config file; run docker login {host}"
        why = self.problem or "the Docker config file has none for it"
        # A login that is given is the registry's own, so it is no use for a mirror.
        give = "" if is_mirror else "give registry_username and registry_password, or "
        return (
            f"without a login ({why}); {give}run docker login {host}; a registry may also answer"
            " so for a name that it does not have"
        )


def docker_config_login(host: str) -> Login:
    """The login that the Docker config file, its store or its helpers have for this registry.

    Read as Docker does (`auths`, `credsStore`, `credHelpers`), by the SDK's `docker.auth`.
    Raises SdkError where there is no SDK.
    """
    docker = import_sdk()
    try:
        found = docker.auth.load_config().resolve_authconfig(host) or {}
    except (docker.errors.DockerException, *_CONFIG_ERRORS) as error:
        return Login(problem=_problem(error))
    lower = {str(key).lower(): str(value or "") for key, value in found.items()}
    return Login(
        lower.get("username", ""), lower.get("password", ""), lower.get("identitytoken", "")
    )


def engine_login(host: str, username: str, password: str) -> str:
    """The header X-Registry-Auth with which an Engine is told a login for this registry.

    The given one, else that of the Docker config file; one that is empty where there is none
    (https://docs.docker.com/reference/api/engine/version/v1.41/, Authentication). Raises SdkError.
    """
    login = Login(username, password) if username else docker_config_login(host)
    fields = {
        "username": login.username,
        "password": login.password,
        "identitytoken": login.identity_token,
        "serveraddress": host,
    }
    there = {name: value for name, value in fields.items() if value}
    return base64.urlsafe_b64encode(json.dumps(there).encode()).decode()


def _problem(error: BaseException) -> str:
    """Why there is no login. The text may quote a secret: only what is known in it is safe."""
    helper = _HELPER.search(str(error))
    if helper:
        how = "is not installed" if helper[2] == "not installed" else "failed"
        return f"the credential helper {helper[1]} {how}"
    return f"the Docker config file cannot be used: {type(error).__name__}"


def challenges(header: str) -> dict[str, dict[str, str]]:
    """The challenges of a WWW-Authenticate header by scheme in lower case, with parameters.

    RFC 9110, section 11.6.1; the first of two challenges with one scheme counts.
    """
    found: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    position = 0
    while match := _PARAMETER.match(header, position):
        position = match.end()
        name, quoted, token = match.groups()
        if quoted is None and token is None:
            current = {}
            found.setdefault(name.lower(), current)
        else:
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else token
            current.setdefault(name.lower(), value)
    return found


class Authorizer:
    """The Authorization headers for one endpoint, each kept until it is refused. Thread-safe."""

    def __init__(
        self,
        host: str,
        look_up: Callable[[], Login],
        transport: Transport,
        is_mirror: bool,
        actions: str = "pull",
    ) -> None:
        """`actions`: the rights on a repository that a token is to give."""
        self._actions = actions
        self._host = host
        self._is_mirror = is_mirror
        self._look_up = look_up
        self._transport = transport
        self._lock = threading.Lock()
        self._headers: dict[str, str] = {}
        self._login: Login | None = None

    @property
    def login(self) -> Login:
        """The login for this endpoint; looked up once, since a credential helper is a process."""
        if self._login is None:
            self._login = self._look_up()
        return self._login

    def refusal(self) -> str:
        """What was sent to this endpoint, and the next step."""
        return self.login.refusal(self._host, self._is_mirror)

    def header(self, repository: str) -> str | None:
        """What to send for this repository without being asked; None where nothing is known."""
        return self._headers.get(repository)

    def answer(self, ask: Ask, repository: str, challenge: str, rejected: str | None) -> str | None:
        """The header that answers a 401; None where there is nothing (else) to send.

        `rejected`: the header that was sent. Raises Refused by the token server, Unavailable,
        RegistryError.
        """
        with self._lock:
            known = self._headers.get(repository)
            if known and known != rejected:
                return known  # another thread was quicker
            offered = challenges(challenge)
            if "bearer" in offered:
                fresh = self._token(ask, offered["bearer"], repository)
            elif "basic" in offered and self.login.username:
                fresh = self.login.basic
            else:
                return None
            self._headers[repository] = fresh
            return fresh if fresh != rejected else None

    def _token(self, ask: Ask, challenge: Mapping[str, str], repository: str) -> str:
        realm = challenge.get("realm", "")
        scheme = realm.partition(":")[0]
        downgrade = ask.url.startswith("https:") and scheme == "http"
        safe = not downgrade or self._transport.is_insecure(realm)
        if scheme not in ("http", "https") or not safe:
            raise RegistryError(
                f"{ask.what}: {self._host} names the token server {clean(realm)!r}, wanted an https"
                " address; ask the registry's owner"
            )
        response = self._transport.send(self._token_request(ask, challenge, repository))
        content = read(self._transport, response, ask, _BODY)
        if response.status_code != 200:
            raise self._token_refusal(ask, realm, response, content)
        document = parse_object(content)
        token = document.get("token") or document.get("access_token")
        if not isinstance(token, str) or not (token.isascii() and token.isprintable()):
            raise RegistryError(
                f"{ask.what}: the token server {host_of(realm)} answered without a token; ask the"
                " registry's owner"
            )
        return f"Bearer {token}"

    def _token_request(self, ask: Ask, challenge: Mapping[str, str], repository: str) -> Ask:
        query = {
            "service": challenge.get("service", ""),
            "scope": _scopes(challenge.get("scope", ""), repository, self._actions),
        }
        realm, login = challenge["realm"], self.login
        if login.identity_token:
            form = {
                **query,
                "grant_type": "refresh_token",
                "client_id": "fleet.images",
                "refresh_token": login.identity_token,
            }
            return Ask("POST", realm, ask.what, form=form)
        headers = {"Authorization": login.basic} if login.username else {}
        joint = "&" if "?" in realm else "?"
        pairs = [("service", query["service"])]
        # Several scopes are several parameters; in a form they are one, with blanks between.
        pairs += [("scope", scope) for scope in query["scope"].split()]
        return Ask("GET", f"{realm}{joint}{urlencode(pairs)}", ask.what, headers)

    def _token_refusal(self, ask: Ask, realm: str, response: Any, content: bytes) -> RegistryError:
        status = int(response.status_code)
        server = f"the token server {host_of(realm)} of {self._host}"
        said = registry_message(content, status)
        if is_transient(status):
            after = retry_after(response.headers.get("Retry-After"))
            message = f"{ask.what}: {server} cannot answer now ({said}); try again later"
            return Unavailable(message, status, after=after)
        return Refused(f"{ask.what}: {server} refused access ({said}) {self.refusal()}", status)


def _scopes(offered: str, repository: str, actions: str) -> str:
    """What to ask a token for: what the registry named, with the rights that are needed here.

    A registry names what the one request needs; who pushes goes on with more than that.
    """
    wanted = f"repository:{repository}:{actions}"
    if actions == "pull" or not repository:
        return offered or wanted
    others = [one for one in offered.split() if not one.startswith(f"repository:{repository}:")]
    return " ".join([wanted, *others])


def read(transport: Transport, response: Any, ask: Ask, limit: int) -> bytes:
    """A small body, `limit` bytes at most; raises RegistryError for more, Unavailable."""
    content = bytearray()
    for chunk in transport.chunks(response, ask):
        content += chunk
        if len(content) > limit:
            response.close()
            raise RegistryError(
                f"{ask.what}: {host_of(ask.url)} sent more than the {limit} bytes that this may"
                " have; ask the registry's owner"
            )
    return bytes(content)


def parse_object(content: bytes) -> dict[str, Any]:
    """A JSON object, {} for anything else."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def registry_message(content: bytes, status: int) -> str:
    """What the registry itself says, fit for a message.

    `errors` with code and message (distribution-spec, "Error Codes"), else what token servers
    send, else the text, else the status.
    """
    document = parse_object(content)
    said = []
    errors = document.get("errors")
    for error in errors if isinstance(errors, list) else []:
        if isinstance(error, dict):
            parts = (error.get("code"), error.get("message"))
            said.append(": ".join(str(part) for part in parts if part))
    if not said:
        keys = ("details", "message", "error_description", "error")
        said = [str(document[key]) for key in keys if isinstance(document.get(key), str)][:1]
    text = "; ".join(said) if document else content.decode("utf-8", "replace")
    if "<html" in text.lower():
        text = ""
    return clean(f"status {status}, {text}" if text.strip() else f"status {status}")
