"""Find the Debian mirror that this machine already uses; no host is named in this code."""

from __future__ import annotations

import os
import re

from . import prerequisites
from .console import FleetError, run

VARIABLE = "FLEET_DEBIAN_MIRROR"


def debian_mirror() -> str:
    """The base address of a Debian archive, from apt's own configuration."""
    if chosen := os.environ.get(VARIABLE):
        return chosen
    if found := _known_archive():
        return found
    prerequisites.update_lists()
    if found := _known_archive():
        return found
    raise FleetError(
        f"apt on this machine knows no Debian archive: "
        f"set {VARIABLE} to the address of a Debian mirror."
    )


def _known_archive() -> str:
    """The label stands in the lists that apt fetched; without lists there is none."""
    listing = run(["apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)"]).stdout
    for line in listing.splitlines():
        label, _bar, address = line.partition("|")
        if label == "Debian":
            return address.rstrip("/")
    return ""


def apt_options() -> list[str]:
    """How bootstraps reach the mirror: this machine's proxies, and limits that end a hang."""
    dump = run(["apt-config", "dump"]).stdout
    wanted = re.compile(r"^Acquire::https?::Proxy\S* \"[^\"]+\";$")
    proxies = [line for line in dump.splitlines() if wanted.match(line)]
    return [
        *proxies,
        'Acquire::http::Timeout "30";',
        'Acquire::Retries "3";',
        'APT::Install-Recommends "false";',
    ]
