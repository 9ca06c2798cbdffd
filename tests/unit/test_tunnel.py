# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tunnels by a program in the place of ssh, which notes its words and goes wrong on demand."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ansible.errors")

from ansible_collections.fleet.images.plugins.plugin_utils import _tunnel
from ansible_collections.fleet.images.plugins.plugin_utils._tunnel import TunnelError, opened

# Notes its words and its process, goes wrong as the file `how.HOST` says, and runs here what it is
# to run there.
SSH = """#!/bin/sh
here=$(dirname "$0")
printf '%s\\n' "$*" >> "$here/calls"
for word; do host=$before; before=$word; done
tries=$(grep -c -- " $host echo" "$here/calls")
case "$(cat "$here/how.$host" 2>/dev/null)" in
    forbidden) echo "Error: remote port forwarding failed for listen port 0" >&2; exit 255;;
    unreachable) echo "ssh: connect to host $host port 22: No route to host" >&2; exit 255;;
    busy) [ "$tries" -ge 3 ] || { echo "Connection reset by peer" >&2; exit 255; };;
    silent) sleep 30; exit 1;;
esac
echo $$ >> "$here/pids"
case "$*" in
    *" -R "*) (sleep 0.2; echo "Allocated port 43210 for remote forward to x:1" >&2) & ;;
esac
case "$*" in
    *" -R "*" node "*)
        # Says why, and breaks off, as soon as the test wants it.
        (
            while kill -0 $$ 2>/dev/null; do
                if [ "$(cat "$here/how.$host" 2>/dev/null)" = dies ]; then
                    echo "Connection to $host closed by remote host." >&2
                    kill -9 $$
                fi
                sleep 0.1
            done
        ) & ;;
esac
exec sh -c "$before"
"""


class Connection:
    """What the tunnel asks of a connection plugin."""

    def __init__(self, host: str, ssh: Path, **options: Any) -> None:
        self.transport = options.pop("transport", "ssh")
        usual = {"host": host, "ssh_executable": str(ssh), "ssh_args": "-C -o ControlMaster=auto"}
        usual.update(ssh_common_args="-F '/a b/ssh_config'", port=2222, remote_user="me")
        self._options = {**usual, **options}

    def get_option(self, name: str) -> Any:
        return self._options.get(name)


class Action:
    """An action plugin with a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection


class Bench:
    """A directory with the program, and two hosts."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place = place
        self.ssh = place / "ssh"
        self.ssh.write_text(SSH)
        self.ssh.chmod(0o755)
        self.node: Any = Connection("node", self.ssh)
        self.relay: Any = Connection("relay", self.ssh)
        monkeypatch.setattr(_tunnel, "connection_to", lambda _host, _action, _vars: self.relay)

    def open(self, tunnel: Any = None) -> Any:
        tunnel = {"host": "relay", "port": 5055} if tunnel is None else tunnel
        return opened(Action(self.node), tunnel, {"inventory_hostname": "node1"})  # type: ignore[arg-type]

    def how(self, host: str, what: str) -> None:
        (self.place / f"how.{host}").write_text(what)

    @property
    def calls(self) -> list[str]:
        file = self.place / "calls"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def running(self) -> list[int]:
        file = self.place / "pids"
        pids = [int(line) for line in file.read_text().split()] if file.exists() else []
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    real = time.sleep
    monkeypatch.setattr(_tunnel.time, "sleep", lambda seconds: real(min(seconds, 0.05)))
    return Bench(tmp_path, monkeypatch)


def test_two_connections_meet_in_a_socket_and_end_with_the_task(bench: Bench) -> None:
    with bench.open() as way:
        assert (way.address, way.broken) == ("127.0.0.1:43210", "")
        assert len(bench.running) == 2
    assert bench.running == []
    (to_relay,) = [call for call in bench.calls if " -L " in call]
    (to_node,) = [call for call in bench.calls if " -R " in call]
    socket = to_relay.partition(" -L ")[2].partition(":127.0.0.1:5055")[0]
    assert f"-R 127.0.0.1:0:{socket} node" in to_node
    assert len(socket) < 60  # sun_path has 108 bytes
    assert not Path(socket).parent.exists()
    for call in bench.calls:
        words = call.split()
        assert "-C" not in words
        assert "ExitOnForwardFailure=yes" in words
        # The first value of an option counts: ours before the user's.
        assert call.index("ControlMaster=no") < call.index("ControlMaster=auto")
        assert "-F /a b/ssh_config" in call
        assert "-p 2222 -l me" in call


def test_a_relay_on_the_controller_needs_one_connection(bench: Bench) -> None:
    bench.relay = Connection("localhost", bench.ssh, transport="local")
    with bench.open({"host": "localhost", "port": "5055"}) as way:
        assert way.address == "127.0.0.1:43210"
    (call,) = bench.calls
    assert "-R 127.0.0.1:0:127.0.0.1:5055 node" in call


def test_one_that_dies_meanwhile_is_told(bench: Bench) -> None:
    """What its ssh says at the end is kept; the other end goes with the task."""
    with bench.open() as way:
        (bench.place / "how.node").write_text("dies")
        deadline = time.monotonic() + 20
        while "closed by" not in way.broken and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "the tunnel to node1 was wanted to the end" in way.broken
        assert "exit code -9 after saying: " in way.broken
        assert "Connection to node closed by remote host" in way.broken
        assert "run again, or let airgap_transport be bundle" in way.broken
    assert bench.running == []


def test_it_ends_when_the_task_fails(bench: Bench) -> None:
    with pytest.raises(ZeroDivisionError), bench.open():
        _nothing = 1 / 0
    assert bench.running == []


def test_it_ends_with_the_process_that_opened_it(bench: Bench) -> None:
    """However that ends: its far side reads what nobody writes any more."""
    pid = os.fork()
    if pid == 0:
        try:
            with bench.open():
                os._exit(0)  # as a killed worker, without any clearing away
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    deadline = time.monotonic() + 20
    while bench.running and time.monotonic() < deadline:
        time.sleep(0.05)
    assert bench.running == []


def test_forbidden_forwarding_is_told_once_with_the_other_way(bench: Bench) -> None:
    bench.how("node", "forbidden")
    with (
        pytest.raises(TunnelError, match=r"remote port forwarding failed.*role airgap"),
        bench.open(),
    ):
        pytest.fail("there is no tunnel")
    assert len(bench.calls) == 2
    assert bench.running == []


def test_a_busy_sshd_is_asked_again(bench: Bench) -> None:
    bench.how("node", "busy")
    with bench.open() as way:
        assert way.address == "127.0.0.1:43210"
    assert sum(" -R " in call for call in bench.calls) == 3


@pytest.mark.parametrize("host", ["relay", "node"])
def test_an_unreachable_host_is_named(bench: Bench, host: str) -> None:
    bench.how(host, "unreachable")
    name = {"relay": "relay", "node": "node1"}[host]
    with pytest.raises(TunnelError, match=f"a tunnel to {name}: .*No route to host"), bench.open():
        pytest.fail("there is no tunnel")
    assert bench.running == []


def test_silence_ends(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tunnel, "PATIENCE", 0.2)
    bench.how("relay", "silent")
    with pytest.raises(TunnelError, match="ssh said: nothing"), bench.open():
        pytest.fail("there is no tunnel")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"transport": "docker"}, "the connection plugin ssh is wanted"),
        ({"password": "x"}, "a key"),
    ],
)
def test_connections_that_cannot_carry_one(bench: Bench, options: Any, said: str) -> None:
    bench.node = Connection("node", bench.ssh, **options)
    with pytest.raises(TunnelError, match=f"node1: {said}"), bench.open():
        pytest.fail("there is no tunnel")
    assert bench.calls == []


@pytest.mark.parametrize("tunnel", [{}, {"host": "relay"}, {"host": "relay", "port": "x"}, "relay"])
def test_what_is_no_tunnel(bench: Bench, tunnel: Any) -> None:
    with pytest.raises(TunnelError, match="wanted a dict of host and port"), bench.open(tunnel):
        pytest.fail("there is no tunnel")
