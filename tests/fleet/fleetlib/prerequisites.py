"""Install what a fresh Debian or Ubuntu machine lacks, from the machine's own apt sources."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .console import FleetError, run, step

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
HELPERS = {
    "mmdebstrap": "mmdebstrap",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    str(KEYRING): "debian-archive-keyring",
}
CLIENT = {"docker": "docker.io"}
ENGINE = {"dockerd": "docker.io", "iptables": "iptables", "docker": "docker.io"}
LIMITS = ["-o", "Acquire::http::Timeout=30", "-o", "Acquire::Retries=3"]
INSTALL_SECONDS = 900


def require_root() -> None:
    """Engines, bootstraps and networks need root: say so before anything is begun."""
    if os.geteuid() != 0:
        raise FleetError("The test fleet needs root: start it as root or with sudo.")


def ensure(programs: dict[str, str]) -> None:
    """Install the packages of those programs (or files) that are not there yet."""
    missing = sorted({p for program, p in programs.items() if not _present(program)})
    if not missing:
        return
    with step(f"installed {' '.join(missing)}"):
        if not _install(missing):
            _apt(["update"])
            if not _install(missing):
                raise FleetError(f"apt-get cannot install {' '.join(missing)}.")


def _present(program: str) -> bool:
    return Path(program).exists() if program.startswith("/") else bool(shutil.which(program))


def _install(packages: list[str]) -> bool:
    return _apt(["install", "--yes", "--no-install-recommends", *packages], check=False)


def _apt(args: list[str], *, check: bool = True) -> bool:
    """A mirror may hang for minutes: the limit turns that into one sentence."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = run(["apt-get", *LIMITS, *args], timeout=INSTALL_SECONDS, env=env, check=check)
    except FleetError as error:
        raise FleetError(f"The package mirror of this machine does not serve: {error}") from error
    return done.returncode == 0
