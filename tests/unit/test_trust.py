# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An Engine trusts an authority as long as it is needed, and what was there stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.fleet.images.plugins.module_utils import _trust
from ansible_collections.fleet.images.plugins.module_utils._trust import TrustError, trusted

SOCKET, REGISTRY, PEM = "unix:///var/run/docker.sock", "relay.example:5055", "-----BEGIN x\n"


@pytest.fixture(autouse=True)
def certs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "docker" / "certs.d"
    monkeypatch.setattr(_trust, "CERTS", place)
    return place


def test_it_is_there_meanwhile_and_nothing_is_left(certs: Path) -> None:
    with trusted(SOCKET, REGISTRY, PEM):
        (file,) = (certs / REGISTRY).iterdir()
        assert file.suffix == ".crt"  # what an Engine takes for an authority
        assert file.read_text() == PEM
        assert file.stat().st_mode & 0o444 == 0o444
    assert not certs.parent.exists()


def test_what_was_there_stays(certs: Path) -> None:
    (certs / REGISTRY).mkdir(parents=True)
    own = certs / REGISTRY / "ca.crt"
    own.write_text("mine")
    with trusted(SOCKET, REGISTRY, PEM):
        assert len(list((certs / REGISTRY).iterdir())) == 2
    assert [path.read_text() for path in (certs / REGISTRY).iterdir()] == ["mine"]


def test_it_goes_when_the_work_fails(certs: Path) -> None:
    with pytest.raises(ZeroDivisionError), trusted(SOCKET, REGISTRY, PEM):
        _nothing = 1 / 0
    assert not certs.parent.exists()


def test_another_runs_files_keep_the_directories(certs: Path) -> None:
    with trusted(SOCKET, REGISTRY, PEM):
        (certs / REGISTRY / "fleet-images-other.crt").write_text("theirs")
    assert [path.name for path in (certs / REGISTRY).iterdir()] == ["fleet-images-other.crt"]


def test_an_engine_elsewhere_is_refused() -> None:
    with (
        pytest.raises(TrustError, match="it is at tcp://far:2376"),
        trusted("tcp://far:2376", REGISTRY, PEM),
    ):
        pytest.fail("that Engine reads other files")


@pytest.mark.parametrize("pem", ["ü", PEM])
def test_what_cannot_be_written_leaves_nothing(certs: Path, pem: str) -> None:
    certs.parent.parent.mkdir(exist_ok=True)
    if pem == PEM:
        certs.parent.write_text("a file")
    with pytest.raises(TrustError, match="become"), trusted(SOCKET, REGISTRY, pem):
        pytest.fail("nothing was written")
    assert not certs.parent.is_dir()
