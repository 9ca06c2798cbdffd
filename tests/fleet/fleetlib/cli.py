"""The command line: one verb each, errors as one sentence."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable

from . import operations
from .bootstrap import bootstrap
from .console import FleetError, say
from .hosts import Fleet

Verb = Callable[[argparse.Namespace], int | None]


def main(argv: list[str] | None = None) -> int:
    """Parse, run, and turn what the user can act on into one line."""
    options = _parser().parse_args(argv)
    verb: Verb = options.verb
    try:
        return verb(options) or 0
    except FleetError as error:
        say(f"fleet: {error}")
        return 1
    except KeyboardInterrupt:
        say("fleet: interrupted; the next run takes up what is unfinished")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fleet", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def add(name: str, verb: Verb, text: str, *, fleet: bool = True) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(verb=verb)
        if fleet:
            sub.add_argument("--name", type=_fleet, required=True, help="demo, test or your own")
        return sub

    add("bootstrap", _bootstrap, "fill the cache and start the outer Engine", fleet=False)
    add("up", lambda o: operations.up(o.name), "start the fleet, or what of it is missing")
    down = add("down", lambda o: operations.down(o.name, o.engine), "remove the fleet")
    down.add_argument("--engine", action="store_true", help="stop the outer Engine, if ours")
    add("status", _status, "one line per host")
    reset = add("reset", lambda o: operations.reset(o.name, o.registry), "empty all Engines")
    reset.add_argument("--registry", action="store_true", help="fresh registry contents as well")
    ssh = add("ssh", lambda o: operations.ssh(o.name, o.host, o.command), "a command on a host")
    ssh.add_argument("host")
    ssh.add_argument("command", nargs=argparse.REMAINDER)
    stop = add("stop-host", lambda o: operations.stop_host(o.name, o.host), "switch a host off")
    stop.add_argument("host")
    start = add("start-host", lambda o: operations.start_host(o.name, o.host), "switch it on")
    start.add_argument("host")
    add("connect", lambda o: operations.connect(o.name), "nodes reach the registry, and trust it")
    add("disconnect", lambda o: operations.disconnect(o.name), "nodes reach no registry again")
    add("net-bytes", _net_bytes, "bytes on the nodes network, as JSON")
    return parser


def _fleet(name: str) -> Fleet:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,19}", name):
        raise argparse.ArgumentTypeError("a short name of lower-case letters, digits and '-'")
    return Fleet(name)


def _bootstrap(_options: argparse.Namespace) -> None:
    bootstrap()


def _status(options: argparse.Namespace) -> int:
    rows = operations.status(options.name)
    for row in rows:
        columns = (row["host"], row["state"], row["address"], row.get("engine", ""))
        print("{:<20} {:<9} {:<12} {:<16}".format(*columns), row.get("store", ""))
    return 0 if all(row["state"] == "running" for row in rows) else 1


def _net_bytes(options: argparse.Namespace) -> None:
    json.dump(operations.net_bytes(options.name), sys.stdout, indent=2)
    print()
