"""Find the Debian mirror that this machine already uses; no host is named in this code."""

from __future__ import annotations

import os
import re

from .console import FleetError, run

VARIABLE = "FLEET_DEBIAN_MIRROR"


def debian_mirror() -> str:
    """The base address of a Debian archive, from apt's own configuration."""
    if chosen := os.environ.get(VARIABLE):
        return chosen
    listing = run(["apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)"]).stdout
    for line in listing.splitlines():
        label, _, address = line.partition("|")
        if label == "Debian":
            return address.rstrip("/")
    raise FleetError(
        f"apt on this machine knows no Debian archive (after 'apt-get update'): "
        f"set {VARIABLE} to the address of a Debian mirror."
    )


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
