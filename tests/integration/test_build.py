# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""buildx_build on real Engines: what it says has changed, where results go, and what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from building import BUILDER, CONTEXT, LAB, NATIVE, PROJECT, SHOP, Site, built, handler
from rig import NODES, Json, Rig, on_each

BOTH = ["linux/amd64", "linux/arm64"]
WITH_CONTAINERD = ["engine26-containerd", "engine28-containerd"]
WITH_BUILDX = [node for node in NODES if not node.startswith("engine20")]
DOCKERFILE = """\
ARG BASE={base}
FROM $BASE
COPY app /app
ARG VERSION=1
RUN uname -m > /machine; echo $VERSION > /version
CMD ["/bin/cat", "/machine", "/version", "/app/a"]
"""


@pytest.fixture(scope="module")
def site(rig: Rig) -> Iterator[Site]:
    """The build host, with a handler for the programs of arm64."""
    with handler(rig):
        site = Site(rig)
        rig.move_tag("shop/tool", "moving", "1")
        try:
            yield site
        finally:
            site.clean()


def app(site: Site) -> None:
    """A context with a Dockerfile on a base whose tag moves."""
    site.write({"Dockerfile": DOCKERFILE.format(base=f"{SHOP}/tool:moving")})
    site.write(
        {"app/a": "one\n", "app/b": "two\n", "notes": "ignored\n", ".dockerignore": "notes\n"}
    )


def test_changes_of_a_build_for_two_platforms(site: Site) -> None:
    """Each change is foreseen, done, and nothing is left of it; what is no change is none."""
    app(site)
    tags = [f"{LAB}/two:1", f"{LAB}/two:latest"]
    options: Json = {"path": CONTEXT, "tags": tags, "platforms": BOTH, "push": True}
    first = site.round(options)
    assert [one["action"] for one in first["images"]] == ["pushed", "pushed"]
    assert set(first["platforms"]) == set(BOTH) and first["steps"] == 6
    served = site.served(f"{PROJECT}/two", "1")
    assert first["digest"] == served == site.served(f"{PROJECT}/two", "latest")
    assert first["lock"]["images"][tags[0]]["digest"] == served

    site.write({"notes": "still ignored\n"})
    site.run("touch", f"{CONTEXT}/app/a")
    assert not site.round(options)["changed"]
    site.write({"app/a": "three\n"})
    changed = site.round(options)
    assert changed["changed"] and "changed since it was built: context" in changed["msg"]
    assert changed["cached_steps"] >= 2 and changed["digest"] != first["digest"]
    options["args"] = {"VERSION": 2}
    assert "built: args" in site.round(options)["msg"]
    site.rig.move_tag("shop/tool", "moving", "2")
    assert "built: bases" in site.round(options)["msg"]
    site.run("chmod", "700", f"{CONTEXT}/app/b")
    assert "built: context" in site.round(options)["msg"]
    fewer = {**options, "platforms": BOTH[:1]}
    assert set(site.round(fewer)["platforms"]) == {NATIVE}
    site.rig.move_tag(f"{PROJECT}/two", "latest", "1")
    more = {**options, "tags": [*tags, f"{LAB}/two:2"]}
    added = site.round(more)
    assert f"not there yet: {LAB}/two:2 in the registry" in added["msg"]
    site.forget(f"{PROJECT}/two", "2")
    assert "not there yet" in site.round(more)["msg"]
    # Only a build can tell whether it gives the same, and here it does: nothing is pushed.
    before = site.served(f"{PROJECT}/two", "2")
    again = site.build({**more, "rebuild": "always"})
    assert not again["changed"] and "the same as before" in again["msg"]
    assert site.served(f"{PROJECT}/two", "2") == before
    site.write({"app/a": "four\n"})
    never = site.round({**more, "rebuild": "never"})
    assert not never["changed"] and site.served(f"{PROJECT}/two", "2") == before


def test_builds_into_engines(site: Site) -> None:
    """Every kind of Engine that has buildx: create, repeat, change, remove the tag."""
    name = "lab.example/app:1"
    dockerfile = "FROM scratch\nCOPY app /app\n"
    site.write({"Dockerfile": dockerfile, "app": "one\n"}, WITH_BUILDX)
    options = {"path": CONTEXT, "tags": [name]}
    hosts = ",".join(WITH_BUILDX)
    for node, told in site.rounds(options, hosts).items():
        assert told["changed"] and told["images"][0]["action"] == "built", node
        assert "in the engine" in told["msg"] and name in site.rig.names(node)
    site.write({"app": "two\n"}, WITH_BUILDX)
    for node, told in site.rounds(options, hosts).items():
        assert told["changed"] and "changed since it was built: context" in told["msg"], node
        again = site.rig.inside(node, "docker", "image", "inspect", name)
        assert told["fingerprint"] in again
    for told in site.rounds({**options, "rebuild": "always"}, hosts, "foretold").values():
        assert not told["changed"], told
    on_each(lambda node: site.rig.inside(node, "docker", "rmi", name), WITH_BUILDX)
    for node, told in site.rounds(options, hosts).items():
        assert told["changed"] and "not there yet" in told["msg"], node
    # Both platforms at once; Engine 26 tells of its own one only.
    both = {**options, "tags": ["lab.example/both:1"], "platforms": BOTH}
    for node, told in site.rounds(both, ",".join(WITH_CONTAINERD)).items():
        assert told["changed"] and NATIVE in told["platforms"], node


def test_into_a_store_and_out_to_nodes(site: Site) -> None:
    """What was built is carried to nodes behind the air gap, and runs on every one of them."""
    app(site)
    site.rig.move_tag("shop/tool", "moving", "1")
    name = f"{LAB}/carried:1"
    store = "/var/tmp/build-store"
    options = {"path": CONTEXT, "tags": [name], "platforms": BOTH, "store": store}
    told = site.round(options)
    assert told["changed"] and set(told["platforms"]) == set(BOTH)
    assert set(told["lock"]["images"][name]["platforms"]) == set(BOTH)
    both = site.build({**options, "push": True, "tags": [f"{LAB}/carried:2"]})
    assert both["digest"] == site.served(f"{PROJECT}/carried", "2")
    lock = site.rig.work / "built.lock.json"
    lock.write_text(json.dumps(told["lock"]))
    variables = {
        "fleet_bastion": BUILDER, "airgap_store": store, "airgap_lock": str(lock),
        "airgap_images": [name],
    }  # fmt: skip
    try:
        run = site.rig.play("fleet.images.airgap", variables)
        assert run.code == 0, run.output
        again = site.rig.play("fleet.images.airgap", variables)
        assert again.code == 0 and all(row["loaded"] == 0 for row in again.rows.values())
        for node in NODES:
            said = site.rig.inside(node, "docker", "run", "--rm", "--network", "none", name)
            assert said == "x86_64\n1\none\n", node
    finally:
        on_each(lambda node: site.rig.inside(node, "docker", "rmi", "-f", name), NODES)


def test_other_contexts(site: Site) -> None:
    """Inline Dockerfiles, archives, git repositories, contexts beside the main one."""
    base = f"{SHOP}/tool:1"
    site.write({"Dockerfile": "FROM scratch\nCOPY app /app\n", "app": "one\n"})
    more = "/var/tmp/build-more"
    site.shell(f"mkdir -p {more}; echo x >{more}/x")
    archive = "/var/tmp/build-context.tar"
    site.run("tar", "-C", CONTEXT, "-cf", archive, "Dockerfile", "app")
    repository = "/var/tmp/build-repository"
    site.shell(
        f"rm -rf {repository}; git init -q -b main {repository}; cd {repository};"
        f" cp -r {CONTEXT}/. .; git config user.email a@b.c; git config user.name a; git add .;"
        " git commit -q -m one; git daemon --reuseaddr --detach --export-all --base-path=/var/tmp"
        " --listen=127.0.0.1 --pid-file=/var/tmp/git-daemon.pid /var/tmp"
    )
    try:
        inline = {
            "path": CONTEXT, "dockerfile_inline": f"FROM {base}\nCOPY --from=more x /x\n",
            "tags": [f"{LAB}/inline:1"], "push": True,
            "build_contexts": {"more": more},
        }  # fmt: skip
        assert site.round(inline)["changed"]
        site.shell(f"echo y >{more}/x")
        assert "built: contexts" in site.round(inline)["msg"]
        packed = {"path": archive, "tags": [f"{LAB}/packed:1"], "push": True}
        assert site.round(packed)["changed"]
        cloned = {"path": "git://127.0.0.1/build-repository#main", "push": True}
        cloned["tags"] = [f"{LAB}/cloned:1"]
        assert site.build(cloned)["changed"]
        # The Dockerfile is in the repository, so a build tells; it gives what was there.
        again = site.build(cloned)
        assert not again["changed"] and "only a build can tell" in again["msg"]
    finally:
        site.shell("kill $(cat /var/tmp/git-daemon.pid)")


def test_reproducible_or_not(site: Site) -> None:
    """A layer that differs from build to build is named, and nothing was pushed."""
    base = f"{SHOP}/tool:1"
    site.write({"app": "one\n"})
    options = {
        "path": CONTEXT, "push": True, "verify_reproducible": True, "provenance": "false",
        "source_date_epoch": 0, "platforms": BOTH,
    }  # fmt: skip
    good = {**options, "tags": [f"{LAB}/same:1"], "dockerfile_inline": "FROM scratch\nCOPY app /\n"}
    told = site.build(good)
    assert told["changed"] and all(one["reproducible"] for one in told["reproducible"].values())
    text = f"FROM {base}\nRUN head -c 9 /dev/urandom > /random\n"
    told = site.build({**options, "tags": [f"{LAB}/other:1"], "dockerfile_inline": text})
    assert told["failed"] and "two builds differ: linux/amd64: layer" in told["msg"]
    assert "/dev/urandom" in told["msg"] and "nothing was pushed" in told["msg"]
    assert site.served(f"{PROJECT}/other", "1") == ""


def test_options_reach_the_build(site: Site) -> None:
    """What each of them does is seen in the image, or in what a step saw."""
    site.write({"Dockerfile": f"FROM {SHOP}/tool:1 AS one\nRUN false\n", "app": "one\n"})
    text = (
        f"FROM {SHOP}/tool:1 AS wanted\n"
        "RUN (ulimit -n; grep far.example /etc/hosts; df -k /dev/shm; ls /sys/class/net) >/seen\n"
        "FROM wanted AS other\nRUN false\n"
    )
    out = "/var/tmp/build-out"
    options = {
        "path": CONTEXT, "dockerfile_inline": text, "tags": [f"{LAB}/options:1"], "push": True,
        "target": "wanted", "labels": {"team": "web"}, "annotations": {"made.by": "us"},
        "ulimits": ["nofile=1111:2222"], "add_hosts": {"far.example": "203.0.113.7"},
        "shm_size": "8m", "network": "none", "cache_to": ["type=inline"], "provenance": "mode=max",
    }  # fmt: skip
    told = site.round(options)
    assert told["changed"]
    name = options["tags"][0]
    seen = site.run("docker", "run", "--rm", "--network", "none", name, "cat", "/seen")
    assert "1111" in seen.split() and "203.0.113.7" in seen and "8192" in seen
    assert "eth0" not in seen
    labels = site.run("docker", "image", "inspect", "--format", "{{json .Config.Labels}}", name)
    assert json.loads(labels)["team"] == "web"
    manifest = told["platforms"][NATIVE]["digest"]
    content = site.rig.manifest(f"{PROJECT}/options", manifest)[2]
    assert json.loads(content)["annotations"] == {"made.by": "us"}
    cached = {**options, "cache_from": [f"type=registry,ref={name}"], "cache_to": None}
    assert not site.round(cached)["changed"]
    local = {"path": CONTEXT, "outputs": [f"type=local,dest={out}"]}
    local["dockerfile_inline"] = "FROM scratch\nCOPY app /app\n"
    assert site.build(local, check=True)["changed"] and site.build(local)["changed"]
    assert site.run("cat", f"{out}/app") == "one\n"


def test_lint(site: Site) -> None:
    site.write({"app": "one\n"})
    text = "from scratch AS one\nCOPY app /app\nFROM one as Two\n"
    options = {"path": CONTEXT, "dockerfile_inline": text, "tags": ["lab.example/lint:1"]}
    refused = site.build({**options, "lint": "refuse"}, check=True)
    assert refused["failed"] and "FromAsCasing" in refused["msg"]
    warned = site.build({**options, "lint": "warn"})
    assert warned["changed"] and any("FromAsCasing" in one for one in warned["lint_findings"])
    old = site.rig.results(
        "engine26-classic", [built("old", {**options, "path": "/tmp", "lint": "warn"})]
    )["old"]["engine26-classic"]
    assert old["failed"] and "lint needs 0.15.0 or newer" in old["msg"]
