"""Install what a fresh Debian or Ubuntu machine lacks, from the machine's own apt sources."""

from __future__ import annotations

import os
import shutil
from glob import glob

from .console import FleetError, run, step

# program, or pattern of a file -> package that brings it, the first of those that apt knows
KEYRING = "/usr/share/keyrings/debian-archive-keyring.[gp]*"
HELPERS = {
    "mmdebstrap": "mmdebstrap",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "openssl": "openssl",
    KEYRING: "debian-archive-keyring",
}
CLIENT = {"docker": "docker-cli docker.io"}
ENGINE = {"dockerd": "docker.io", "iptables": "iptables", **CLIENT}
LIMITS = ["-o", "Acquire::http::Timeout=30", "-o", "Acquire::Retries=3"]
INSTALL_SECONDS = 900


def require_root() -> None:
    """Engines, bootstraps and networks need root: say so before anything is begun."""
    if os.geteuid() != 0:
        raise FleetError("The test fleet needs root: start it as root or with sudo.")


def ensure(programs: dict[str, str]) -> None:
    """Install the packages of those programs (or files) that are not there yet."""
    missing = [package for program, package in programs.items() if not _present(program)]
    if not missing:
        return
    with step(f"installed {' '.join(missing)}"):
        if not _install(missing):
            update_lists()
            if not _install(missing):
                raise FleetError(f"apt-get cannot install {' '.join(missing)}.")
    if lacking := [program for program in programs if not _present(program)]:
        raise FleetError(f"Installed {' '.join(missing)}, but {' '.join(lacking)} is not there.")


def update_lists() -> None:
    """A fresh machine has package sources, but no lists yet."""
    _apt(["update"])


def keyring() -> str:
    """The keys that sign Debian archives; the file's ending changes between releases."""
    return sorted(glob(KEYRING))[0]


def _present(program: str) -> bool:
    return bool(glob(program) if program.startswith("/") else shutil.which(program))


def _install(packages: list[str]) -> bool:
    chosen = sorted({_known(package) for package in packages})
    return _apt(["install", "--yes", "--no-install-recommends", *chosen], check=False)


def _known(alternatives: str) -> str:
    """Packages are split differently in different releases."""
    *others, last = alternatives.split()
    for package in others:
        if run(["apt-cache", "show", package], check=False).returncode == 0:
            return package
    return last


def _apt(args: list[str], *, check: bool = True) -> bool:
    """A mirror may hang for minutes: the limit turns that into one sentence."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = run(["apt-get", *LIMITS, *args], timeout=INSTALL_SECONDS, env=env, check=check)
    except FleetError as error:
        raise FleetError(f"The package mirror of this machine does not serve: {error}") from error
    return done.returncode == 0
