# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificate of a relay: hosts that trust it, trust it under its names and no others."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest

pytest.importorskip("cryptography")
pytest.importorskip("ansible")

from ansible.errors import AnsibleActionFail

from ansible_collections.fleet.images.plugins.action import image_relay
from ansible_collections.fleet.images.plugins.module_utils._relay_config import names_of
from ansible_collections.fleet.images.plugins.plugin_utils._authority import make_pair

NAMES = ["10.0.0.1", "fd00::1", "gate.example.com"]


def shake_hands(tmp_path: Path, pair: tuple[str, str], name: str, trusted: str) -> ssl.SSLObject:
    """What a client sees that trusts a certificate and wants this name; raises SSLError."""
    for path, content in zip(("crt", "key"), pair):
        (tmp_path / path).write_text(content)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    client_side = ssl.create_default_context(cadata=trusted)
    # As Python 3.13 does by itself.
    client_side.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(to_client, to_server, server_hostname=name)
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    for _turn in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client


@pytest.mark.parametrize("name", NAMES)
def test_it_holds_for_its_names(tmp_path: Path, name: str) -> None:
    pair = make_pair(NAMES)
    shown = shake_hands(tmp_path, pair, name, pair[0]).getpeercert()
    assert shown is not None
    until = ssl.cert_time_to_seconds(str(shown["notAfter"])) - time.time()
    since = time.time() - ssl.cert_time_to_seconds(str(shown["notBefore"]))
    assert 29.9 * 86400 < until < 30 * 86400
    assert 3500 < since < 3700


def test_it_holds_for_nothing_else(tmp_path: Path) -> None:
    pair, other = make_pair(NAMES), make_pair(NAMES)
    for name, trusted in (("other.example.com", pair[0]), ("10.0.0.1", other[0])):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(tmp_path, pair, name, trusted)


def test_each_is_fresh_and_the_public_part_is_public() -> None:
    first, second = make_pair(["a"]), make_pair(["a"])
    assert first[0] != second[0] and first[1] != second[1]
    assert "PRIVATE" not in first[0] and first[1].startswith("-----BEGIN PRIVATE KEY-----")


def test_names_have_one_spelling() -> None:
    assert names_of("127.0.0.1", ("Gate", "gate", "FD00:0::1")) == ["127.0.0.1", "gate", "fd00::1"]
    assert names_of("0.0.0.0", ("gate",)) == ["gate"]


def test_what_no_certificate_can_name_is_told() -> None:
    with pytest.raises(AnsibleActionFail, match=r"address 0\.0\.0\.0: .*; give names"):
        image_relay._made({"address": "0.0.0.0"})
    with pytest.raises(AnsibleActionFail, match="wanted IP addresses and DNS names, found"):
        image_relay._made({"names": ["schön.example"]})
