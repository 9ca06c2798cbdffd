# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes into a build, looked at without building: context, Dockerfile, bases, and options."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.fleet.images.plugins.module_utils import _context, _dockerignore
from ansible_collections.fleet.images.plugins.module_utils._build_command import text, texts
from ansible_collections.fleet.images.plugins.module_utils._buildx import BuildxError
from ansible_collections.fleet.images.plugins.module_utils._dockerfile import (
    Dockerfile,
    Outside,
    parse,
)
from ansible_collections.fleet.images.plugins.module_utils._engine import EngineError
from ansible_collections.fleet.images.plugins.module_utils._fingerprint import Fingerprint
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    InvalidReference,
    Reference,
    parse_platform,
)
from ansible_collections.fleet.images.plugins.module_utils._reference import (
    parse as parse_reference,
)
from ansible_collections.fleet.images.plugins.module_utils._registry import RegistryError

Params = Mapping[str, Any]

DIRECTORY, ARCHIVE, GIT, URL = "directory", "archive", "git", "url"
# As buildx tells a git repository from an archive
# (https://docs.docker.com/build/concepts/context/#git-repositories).
_GIT = re.compile(
    r"(?:git://|git@|ssh://|github\.com/)|https?://[^#]+\.git(?:[#?].*)?\Z", re.IGNORECASE
)
_URL = re.compile(r"https?://")
_IMAGE, _OCI = "docker-image://", "oci-layout://"
_NO_SCHEME = re.compile(r"github\.com/", re.IGNORECASE)
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_GIT_SECONDS = 60
# Options that decide what comes out; those that only decide how it is made do not count.
_OPTIONS = (
    *("target", "network", "shm_size", "ulimits", "ssh"),
    *("provenance", "sbom", "source_date_epoch"),
)
Resolve = Callable[[Reference], str]


@dataclass
class Inputs:
    """What goes in. `bases`: the images that it builds on, as written -> digest, '' for unknown."""

    kind: str
    bases: dict[str, str] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)
    parts: dict[str, Any] = field(default_factory=dict)
    tree: _context.Tree = field(default_factory=_context.Tree)

    @property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint of all that was looked at."""
        return Fingerprint(self.parts, tuple(self.unseen))


def gather(params: Params, resolve: Resolve, remember: bool) -> Inputs:
    """Looks at everything that goes into the build.

    `params`: the options of buildx_build. `resolve`: gives the digest of a base image as the
    builder would find it, and raises RegistryError or EngineError. `remember`: whether the digests
    of files may be kept for the next time. Raises BuildxError, ContextError, InvalidDockerfile,
    InvalidReference.
    """
    found = Inputs(kind_of(params))
    native = parse_platform(f"{os.uname().sysname.lower()}/{os.uname().machine}")
    found.parts["context"] = _context_of(params, found, remember)
    dockerfile = _dockerfile_text(params, found)
    found.parts["dockerfile"] = dockerfile
    if dockerfile is None:
        found.unseen.append("the Dockerfile is in the repository")
    else:
        _note_outside(params, parse(dockerfile), native, found)
    found.parts["contexts"] = {
        name: _named_context(name, text(value), found, remember)
        for name, value in (params.get("build_contexts") or {}).items()
    }
    for name in found.bases:
        found.bases[name] = _digest(name, resolve, found)
    found.parts["bases"] = dict(found.bases)
    found.parts["args"] = texts(params.get("args"))
    found.parts["labels"] = texts(params.get("labels"))
    found.parts["options"] = _options(params, native)
    return found


def kind_of(params: Params) -> str:
    """What the context is; raises BuildxError where there is nothing."""
    path = str(params["path"])
    if os.path.isdir(path):
        return DIRECTORY
    if os.path.isfile(path):
        return ARCHIVE
    if _GIT.match(path):
        return GIT
    if _URL.match(path):
        return URL
    raise BuildxError(
        f"context {path}: wanted a directory, an archive, or the URL of one or of a git repository;"
        " there is nothing on this host; correct path, or copy it there first"
    )


def dockerfile_path(params: Params) -> str:
    """Where the Dockerfile of a directory lies: `dockerfile` below it, or anywhere."""
    return os.path.join(str(params["path"]), params.get("dockerfile") or "Dockerfile")


def _context_of(params: Params, found: Inputs, remember: bool) -> str:
    path = str(params["path"])
    if found.kind == DIRECTORY:
        found.tree = _tree(Path(path), _ignore(params), remember)
        return found.tree.digest
    if found.kind == ARCHIVE:
        return _context.file_digest(Path(path))
    if found.kind == GIT:
        return _commit(path, found)
    found.unseen.append(f"{path} may change at any time")
    return path


def _tree(root: Path, ignore: _dockerignore.Ignore, remember: bool) -> _context.Tree:
    return _context.read(root, ignore, _context.Memory.of(root, remember))


def _ignore(params: Params) -> _dockerignore.Ignore:
    """The .dockerignore that counts: that of the Dockerfile itself before the context's."""
    names = [os.path.join(str(params["path"]), ".dockerignore")]
    if not params.get("dockerfile_inline"):
        names.insert(0, f"{dockerfile_path(params)}.dockerignore")
    return _first_ignore(names)


def _first_ignore(names: Sequence[str]) -> _dockerignore.Ignore:
    for name in names:
        try:
            return _dockerignore.parse(Path(name).read_text("utf-8", "surrogateescape"))
        except FileNotFoundError:
            continue
        except (OSError, _dockerignore.InvalidPattern) as error:
            raise BuildxError(f"{name}: cannot be used: {error}") from error
    return _dockerignore.Ignore()


def _dockerfile_text(params: Params, found: Inputs) -> str | None:
    """The Dockerfile; None where it cannot be seen from here."""
    if params.get("dockerfile_inline"):
        if found.kind == ARCHIVE:
            raise BuildxError(
                f"context {params['path']}: an archive with dockerfile_inline, of which buildx"
                " takes one only; unpack the archive, or put the Dockerfile into it"
            )
        return str(params["dockerfile_inline"])
    if found.kind == DIRECTORY:
        place = dockerfile_path(params)
        try:
            return Path(place).read_text("utf-8", "surrogateescape")
        except OSError as error:
            raise BuildxError(
                f"{place}: wanted as the Dockerfile, cannot be read ({error.strerror}); correct"
                " dockerfile or path, or give dockerfile_inline"
            ) from error
    if found.kind == ARCHIVE:
        return _from_archive(str(params["path"]), params.get("dockerfile") or "Dockerfile")
    return None


def _from_archive(path: str, name: str) -> str:
    try:
        with tarfile.open(path) as tar:
            wanted = (one for one in tar if os.path.normpath(one.name) == os.path.normpath(name))
            member = next(wanted, None)
            file = tar.extractfile(member) if member else None
            if file:
                return file.read().decode("utf-8", "surrogateescape")
    except (tarfile.TarError, OSError, EOFError, KeyError, zlib.error) as error:
        raise BuildxError(
            f"context {path}: wanted a tar archive, it cannot be read ({error}); make it anew"
        ) from error
    raise BuildxError(f"context {path}: wanted {name} in the archive, it has none; correct it")


def _note_outside(params: Params, dockerfile: Dockerfile, native: str, found: Inputs) -> None:
    """The images that the Dockerfile builds on, and what it fetches that may change."""
    contexts = params.get("build_contexts") or {}
    outside: Outside = dockerfile.outside(
        params.get("target") or "",
        texts(params.get("args")),
        platforms=[parse_platform(one) for one in params.get("platforms") or ()],
        native=native,
        contexts=tuple(contexts),
    )
    for name in outside.images:
        found.bases[name] = ""
    found.unseen += [f"ADD {one} has no checksum" for one in outside.remotes]


def _named_context(name: str, value: str, found: Inputs, remember: bool) -> str:
    """What stands for a build context of this name."""
    if value.startswith(_IMAGE):
        found.bases[value[len(_IMAGE) :]] = ""
        return value
    if value.startswith(_OCI):
        return f"{value} {_layout_index(name, value[len(_OCI) :])}"
    if _GIT.match(value):
        return _commit(value, found)
    if _URL.match(value):
        found.unseen.append(f"{value} may change at any time")
        return value
    if not os.path.isdir(value):
        raise BuildxError(
            f"build context {name}: wanted the directory {value}, there is none on this host;"
            " correct build_contexts"
        )
    ignore = _first_ignore([os.path.join(value, ".dockerignore")])
    return _tree(Path(value), ignore, remember).digest


def _layout_index(name: str, value: str) -> str:
    place = Path(value.partition("@")[0], "index.json")
    if not place.is_file() and ":" in place.parent.name:
        place = Path(str(place.parent).rpartition(":")[0], "index.json")
    try:
        return _context.file_digest(place)
    except OSError as error:
        raise BuildxError(
            f"build context {name}: wanted an image layout, {place} cannot be read"
            f" ({error.strerror}); correct build_contexts"
        ) from error


def _commit(url: str, found: Inputs) -> str:
    """The repository with the commit that its branch or tag names now."""
    repository, _hash, fragment = url.partition("#")
    wanted, _colon, directory = fragment.partition(":")
    if _COMMIT.match(wanted):
        return url
    if _NO_SCHEME.match(repository):
        repository = f"https://{repository}"
    wanted = wanted or "HEAD"
    command = ["git", "ls-remote", "--exit-code", "--", repository, wanted, f"{wanted}^{{}}"]
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=_GIT_SECONDS,
            env=environment,
        )
        words = " ".join(done.stderr.split()[-20:]) or "it has no such branch or tag"
    except (OSError, subprocess.TimeoutExpired) as error:
        found.unseen.append(f"the commit of {repository} ({error})")
        return url
    if done.returncode:
        found.unseen.append(f"the commit of {repository} ({words})")
        return url
    commit = _named(wanted, done.stdout)
    if not commit:
        found.unseen.append(f"the commit of {repository} (it has no branch or tag {wanted})")
        return url
    return f"{repository}#{commit}:{directory}"


def _named(wanted: str, listed: str) -> str:
    """The commit of a branch or tag, '' for none: the list has others that end so as well.

    In the order of git checkout, and of an annotated tag the commit (`^{}`).
    """
    commits = {line.partition("\t")[2]: line.partition("\t")[0] for line in listed.splitlines()}
    names = (wanted, f"refs/{wanted}", f"refs/heads/{wanted}", f"refs/tags/{wanted}")
    for name in names:
        if name in commits:
            return commits.get(f"{name}^{{}}") or commits[name]
    return ""


def _digest(name: str, resolve: Resolve, found: Inputs) -> str:
    """The digest of a base image; '' where it cannot be known before the build."""
    try:
        reference = parse_reference(name)
        return reference.digest or resolve(reference)
    except InvalidReference as error:
        found.unseen.append(f"base image {error}")
    except (RegistryError, EngineError) as error:
        found.unseen.append(f"base image {error}")
    return ""


def _options(params: Params, native: str) -> dict[str, Any]:
    options: dict[str, Any] = {name: params.get(name) for name in _OPTIONS}
    options["platforms"] = sorted(map(parse_platform, params.get("platforms") or [native]))
    options["annotations"] = texts(params.get("annotations"))
    options["add_hosts"] = texts(params.get("add_hosts"))
    options["secrets"] = _names(params.get("secrets") or ())
    return {name: value for name, value in options.items() if value not in (None, "", [], {})}


def _names(secrets: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted(str(one["id"]) for one in secrets)
