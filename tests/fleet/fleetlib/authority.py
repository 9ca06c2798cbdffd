"""Certificates of registries, by an authority of the fleet's own that no system trusts."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from .console import run
from .hosts import HOSTS, REGISTRY_NAME, Fleet
from .places import state_dir

_DAYS = "3650"
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def place(fleet: Fleet) -> Path:
    """The directory with ca.pem, registry.pem and registry.key."""
    return state_dir(fleet.name) / "authority"


def ensure(fleet: Fleet) -> None:
    """Makes that directory, complete or not at all, if it is not there."""
    final = place(fleet)
    if final.exists():
        return
    part = final.with_name("authority.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    _certify(part, "ca", "fleet test authority", "basicConstraints=critical,CA:TRUE")
    _issue(part, "registry", part, [f"DNS:{REGISTRY_NAME}", f"IP:{fleet.address(HOSTS[0])}"])
    part.replace(final)


def issue(fleet: Fleet, name: str, directory: Path, dns_names: Iterable[str]) -> None:
    """Makes NAME.pem and NAME.key in a directory: another certificate of the fleet's authority."""
    _issue(place(fleet), name, directory, [f"DNS:{one}" for one in dns_names])


def _issue(authority: Path, name: str, directory: Path, holds_for: list[str]) -> None:
    signer = ("-CA", authority / "ca.pem", "-CAkey", authority / "ca.key")
    subject = holds_for[0].partition(":")[2]
    names = f"subjectAltName={','.join(holds_for)}"
    _certify(directory, name, subject, "basicConstraints=critical,CA:FALSE", names, by=signer)


def _certify(
    directory: Path, name: str, subject: str, *extensions: str, by: tuple[str | Path, ...] = ()
) -> None:
    command = ["openssl", "req", "-x509", "-days", _DAYS, *_KEY, *by, "-subj", f"/CN={subject}"]
    for extension in extensions:
        command += ["-addext", extension]
    run([*command, "-keyout", directory / f"{name}.key", "-out", directory / f"{name}.pem"])
