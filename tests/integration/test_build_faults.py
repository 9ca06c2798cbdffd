# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds that cannot be done: each says why and what to do, and every tag is what it was."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from building import BUILDER, CONTEXT, LAB, PROJECT, SHOP, Site, built, handler
from fleetlib.hosts import REGISTRY_CA, TLS_REGISTRY
from pulling import LOGIN, small_disks
from rig import Json, Rig

SECRETS = {"value": "value-4f9ab2c71d", "env": "environment-8c2e55aa01", "src": "file-77d0a1b3e9"}
BOTH = ["linux/amd64", "linux/arm64"]
RUNS = f"FROM {SHOP}/tool:1\nCOPY app /app\nRUN "


@pytest.fixture(scope="module")
def site(rig: Rig) -> Iterator[Site]:
    site = Site(rig)
    try:
        site.write({"Dockerfile": "FROM scratch\nCOPY app /app\n", "app": "one\n"})
        yield site
    finally:
        site.clean()


def all_of(site: Site, cases: Mapping[str, Mapping[str, Any]]) -> dict[str, Json]:
    """The case's name -> what it gives, all in one run; each case fails, and changes nothing."""
    usual = {"path": CONTEXT, "push": True}
    tasks = []
    for name, options in cases.items():
        tags = options.get("tags", [f"{LAB}/{name.replace(' ', '-')}:1"])
        tasks.append(built(name, {**usual, "tags": tags, **options}))
    found = site.rig.results(BUILDER, tasks)
    given = {name: dict(hosts[BUILDER]) for name, hosts in found.items()}
    for name, told in given.items():
        assert told.get("failed") and not told["changed"], (name, told)
        assert told["msg"].count("\n") == 0
        assert site.served(f"{PROJECT}/{name.replace(' ', '-')}", "1") == "", name
    return given


def test_each_says_why(site: Site) -> None:
    # A program that no machine runs stands for one of another kind of machine.
    site.write({"foreign": "\x7fELF nothing\n"})
    site.shell(f"chmod 755 {CONTEXT}/foreign")
    told = all_of(
        site,
        {
            "no parse": {"dockerfile_inline": "FROM scratch\nFRUM x\n"},
            "no dockerfile": {"dockerfile": "other/Dockerfile"},
            "no context": {"path": "/var/tmp/nothing-here"},
            "no named context": {"build_contexts": {"lib": "/var/tmp/nothing-here"}},
            "no file": {"dockerfile_inline": "FROM scratch\nCOPY nothing /\n"},
            "no secret": {"secrets": [{"id": "token", "src": "/var/tmp/nothing-here"}]},
            "no variable": {"secrets": [{"id": "token", "env": "NOT_SET_HERE"}]},
            "no platform": {
                "platforms": ["linux/s390x"], "dockerfile_inline": f"{RUNS}uname -m\n",
            },
            "no emulation": {
                "platforms": ["linux/riscv64"],
                "dockerfile_inline": "FROM scratch\nCOPY foreign /bin/sh\nRUN x\n",
            },
            "no base": {"dockerfile_inline": f"FROM {SHOP}/nothing:1\n"},
            "no builder": {"builder": "nobody"},
            "no target": {"target": "nothing"},
            "refused": {
                "tags": [f"{TLS_REGISTRY}/{PROJECT}/refused:1"], "registry_username": "shop",
                "registry_password": "wrong-for-tests", "registry_ca_path": REGISTRY_CA,
            },
            "no registry": {"tags": [f"127.0.0.1:9/{PROJECT}/x:1"]},
        },
    )  # fmt: skip
    assert "dockerfile parse error on line 2: unknown instruction: FRUM" in told["no parse"]["msg"]
    assert "other/Dockerfile: wanted as the Dockerfile" in told["no dockerfile"]["msg"]
    assert "there is nothing on this host" in told["no context"]["msg"]
    assert "build context lib: wanted the directory" in told["no named context"]["msg"]
    assert '"/nothing": not found' in told["no file"]["msg"]
    assert "secret token: wanted from the file" in told["no secret"]["msg"]
    assert "NOT_SET_HERE, which is not set" in told["no variable"]["msg"]
    assert "no match for platform" in told["no platform"]["msg"]
    emulation = told["no emulation"]
    assert emulation["failed_step"]["platform"] in ("", "linux/riscv64")
    assert "no way to run programs of linux/riscv64" in emulation["msg"]
    assert "image_build" in emulation["msg"]
    assert "shop/nothing:1" in told["no base"]["msg"]
    assert 'no builder "nobody" found' in told["no builder"]["msg"]
    assert "target nothing: wanted as a stage" in told["no target"]["msg"]
    assert "401" in told["refused"]["msg"] or "refused" in told["refused"]["msg"]
    assert "wrong-for-tests" not in json.dumps(told)
    assert "127.0.0.1:9" in told["no registry"]["msg"]


def test_a_step_that_fails_on_one_platform(site: Site) -> None:
    text = f"{RUNS}echo on $(uname -m); [ $(uname -m) = x86_64 ] || {{ echo bad luck; exit 7; }}\n"
    with handler(site.rig):
        told = all_of(site, {"one sided": {"dockerfile_inline": text, "platforms": BOTH}})
    failed = told["one sided"]
    assert failed["failed_step"]["platform"] == "linux/arm64"
    assert failed["failed_step"]["lines"] == ["on aarch64", "bad luck"]
    assert "failed for linux/arm64" in failed["msg"] and "exit code: 7" in failed["msg"]
    assert failed["msg"].endswith("its last line: bad luck")


def test_no_buildx(site: Site) -> None:
    task = built("none", {"path": "/tmp", "dockerfile_inline": "FROM scratch\n", "tags": ["x/y:1"]})
    told = site.rig.results("engine20-classic", [task])["none"]["engine20-classic"]
    assert told["failed"] and "docker buildx: wanted on this host, found none" in told["msg"]
    assert "install the package docker-buildx" in told["msg"]


def test_a_registry_that_goes_away_during_the_push(site: Site) -> None:
    """The old tag still works, and the next run ends what was begun."""
    name = "127.0.0.1:5056/" + PROJECT + "/away:1"
    site.shell(
        "cat >/var/tmp/build-cut.py <<'E'\n" + _CUTTING + "E\n"
        "(exec python3 /var/tmp/build-cut.py) >/dev/null 2>&1 & echo $! >/var/tmp/build-cut.pid"
    )
    try:
        options = {"path": CONTEXT, "tags": [name], "push": True}
        first = site.build(options)
        assert first["changed"], first
        before = site.served(f"{PROJECT}/away", "1")
        site.write({"app": "two\n"})
        site.shell("touch /var/tmp/build-cut")
        told = site.build(options)
        assert told["failed"] and "failed to push" in told["msg"], told
        assert site.served(f"{PROJECT}/away", "1") == before != ""
        site.shell("rm /var/tmp/build-cut")
        assert site.build(options)["changed"]
        assert site.served(f"{PROJECT}/away", "1") != before
    finally:
        site.shell("kill $(cat /var/tmp/build-cut.pid)")


def test_a_full_disk(site: Site) -> None:
    """No room in the store, and none for a step: the store and the tag are what they were."""
    store = "/var/tmp/build-small"
    big = f"{RUNS}head -c 3000000 /dev/urandom > /big\n"
    site.shell(f"mkdir -p {store}; mount -t tmpfs -o size=1m tmpfs {store}")
    try:
        options = {"path": CONTEXT, "tags": [f"{LAB}/full:1"], "dockerfile_inline": big}
        told = site.build({**options, "store": store})
        assert told["failed"] and "No space left on device" in told["msg"], told
        assert site.shell(f"find {store}/blobs -type f; cat {store}/index.json || true") == ""
    finally:
        site.shell(f"umount {store}; rmdir {store}")
    with small_disks(site.rig, "30m", [BUILDER]):
        big = f"{RUNS}dd if=/dev/zero of=/big bs=1M count=60\n"
        told = site.build({**options, "dockerfile_inline": big, "push": True})
    assert told["failed"] and told["failed_step"], told
    assert "No space left on device" in " ".join(told["failed_step"]["lines"])
    assert site.served(f"{PROJECT}/full", "1") == ""


def test_no_secret_is_left_anywhere(site: Site) -> None:
    """Steps read all three kinds of secret; nothing else shows one, a failed build included."""
    names = " ".join(SECRETS)
    # Each step waits, so that the list of processes can be looked at meanwhile.
    mounts = " ".join(f"--mount=type=secret,id={name}" for name in SECRETS)
    proof = f"for n in {names}; do [ -s /run/secrets/$n ] || exit 9; wc -c </run/secrets/$n; done"
    good = f"FROM {SHOP}/tool:1\nRUN {mounts} {proof} >/sizes; sleep 3\n"
    bad = f"FROM {SHOP}/tool:1\nRUN {mounts} cat /run/secrets/*; exit 4\n"
    words = [*SECRETS.values(), LOGIN["registry_password"]]
    words.append(base64.b64encode(":".join(LOGIN.values()).encode()).decode())
    python = "#!/bin/sh\nexport BUILD_SECRET=" + SECRETS["env"] + '\nexec /usr/bin/python3 "$@"\n'
    files = {"secret": SECRETS["src"], "words": "\n".join(words) + "\n", "python": python}
    for name, text in files.items():
        site.keep(f"/var/tmp/build-{name}", text, 0o700)
    watch = (
        "rm -f /var/tmp/build-seen; for i in $(seq 60); do for p in /proc/[0-9]*; do"
        " tr '\\0' ' ' <$p/cmdline; echo; done >>/var/tmp/build-seen 2>/dev/null;"
        " find /tmp $HOME/.ansible $HOME/.docker /run -xdev -type f -size -64k -newer"
        " /var/tmp/build-secret -print0 2>/dev/null | xargs -0 -r grep -l -F"
        " -f /var/tmp/build-words >>/var/tmp/build-files 2>/dev/null; sleep 0.2; done"
    )
    site.shell(f"rm -f /var/tmp/build-files; ({watch}) >/dev/null 2>&1 &")
    options = {
        "path": CONTEXT, "push": True, **LOGIN, "registry_ca_path": REGISTRY_CA,
        "secrets": [
            {"id": "value", "value": SECRETS["value"]}, {"id": "env", "env": "BUILD_SECRET"},
            {"id": "src", "src": "/var/tmp/build-secret"},
        ],
    }  # fmt: skip
    tasks = []
    for name, text in (("good", good), ("bad", bad)):
        tag = f"{TLS_REGISTRY}/{PROJECT}/{name}:1"
        tasks.append(built(name, {**options, "tags": [tag], "dockerfile_inline": text}))
    # Ansible puts what a task's `environment` sets on a command line; a host's own is on none.
    interpreter = {"ansible_python_interpreter": "/var/tmp/build-python"}
    found = site.rig.results(BUILDER, tasks, interpreter)
    assert found["good"][BUILDER]["changed"], found["good"]
    failed = found["bad"][BUILDER]
    assert failed["failed_step"]["lines"], failed
    told = json.dumps(found)
    assert not [word for word in words if word in told]
    run = max(site.rig.work.glob("run-*/output"), key=lambda path: path.stat().st_mtime)
    # What the play itself is made of has them, its output has not.
    assert not [word for word in words if word in run.read_text()]
    seen = site.shell("cat /var/tmp/build-seen")
    assert "docker-buildx" in seen and "secret" in seen
    assert not [word for word in words if word in seen]
    patterns = "-f /var/tmp/build-words"
    places = "/var/log $HOME /tmp /etc/docker /run"
    assert site.shell(f"grep -rlF {patterns} {places} 2>/dev/null || true").split() == []
    kept = site.shell("sort -u /var/tmp/build-files; rm /var/tmp/build-files /var/tmp/build-seen")
    # Ansible's own file of a module's arguments lies in its temporary directory, for this user.
    assert [line for line in kept.split() if "/.ansible/tmp/" not in line] == []
    image = site.shell(
        f"docker save {TLS_REGISTRY}/{PROJECT}/good:1 | grep -caF {patterns} || true"
    )
    assert image.strip() == "0"
    assert site.served(f"{PROJECT}/bad", "1") == "" != site.served(f"{PROJECT}/good", "1")


# A door to the fleet's registry that answers no write while a file is there.
_CUTTING = f"""\
import os, socket, urllib.error, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def pass_on(self):
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size) if size else b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while (count := int(self.rfile.readline(), 16)) > 0:
                body += self.rfile.read(count)
                self.rfile.readline()
            self.rfile.readline()
        if self.command in ("PUT", "PATCH") and os.path.exists("/var/tmp/build-cut"):
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        keep = ("Accept", "Content-Type", "Content-Range", "Range")
        headers = {{name: self.headers[name] for name in keep if self.headers[name]}}
        headers["Host"] = "127.0.0.1:5056"
        request = urllib.request.Request(
            "http://{LAB.partition("/")[0]}" + self.path, body or None, headers, method=self.command
        )
        try:
            answer = urllib.request.urlopen(request, timeout=30)
        except urllib.error.HTTPError as error:
            answer = error
        content = answer.read()
        self.send_response(answer.status if hasattr(answer, "status") else answer.code)
        for name, value in answer.headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = answer.headers.get("Content-Length") if self.command == "HEAD" else len(content)
        self.send_header("Content-Length", str(length or 0))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = pass_on

    def log_message(self, *unused):
        pass

ThreadingHTTPServer(("127.0.0.1", 5056), Handler).serve_forever()
"""
