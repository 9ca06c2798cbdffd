# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A certificate authority that an Engine trusts for one registry, as long as it is needed.

An Engine reads the directory of a registry anew with every request
(https://docs.docker.com/engine/security/certificates/), so nothing has to be restarted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

CERTS = Path("/etc/docker/certs.d")


class TrustError(Exception):
    """The Engine cannot be made to trust a registry; the message says why, and the next step."""


@contextlib.contextmanager
def trusted(docker_host: str, registry: str, authority: str) -> Iterator[None]:
    """While this lasts, the Engine of this host trusts `authority` (PEM) for `registry`.

    What the directory of that registry holds already stays. Raises TrustError.
    """
    if not docker_host.startswith("unix://"):
        raise TrustError(
            f"via_ca: an Engine on this host is wanted, it is at {docker_host}; put the certificate"
            f" into {CERTS}/{registry} there, and leave via_ca out"
        )
    # By content and process: two runs at once keep out of each other's way.
    place = CERTS / registry
    file = place / f"fleet-images-{os.getpid()}.crt"
    made: list[Path] = []
    try:
        for directory in (CERTS.parent, CERTS, place):
            if not directory.is_dir():
                directory.mkdir(mode=0o755)
                made.append(directory)
        file.write_text(authority, encoding="ascii")
    except (OSError, UnicodeError) as error:
        _clear(file, made)
        raise TrustError(
            f"via_ca: wanted {file}, {error}; run this task with become, or bring the images as a"
            " bundle with the role airgap"
        ) from error
    try:
        yield
    finally:
        _clear(file, made)


def _clear(file: Path, made: list[Path]) -> None:
    """Removes what was made, directories only where nobody else put something into them."""
    with contextlib.suppress(OSError):
        file.unlink()
    for directory in reversed(made):
        with contextlib.suppress(OSError):
            directory.rmdir()
