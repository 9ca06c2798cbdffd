# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An Engine stub whose images have sizes, parents and users, and can be removed.

It answers and refuses as Engines 20.10, 26.1 and 28.5 were seen to do, lies included: a containerd
store says "Deleted" of an image that it keeps, because another one was built upon it.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from engine_stub import EngineStub, chain_of

EPOCH = 1_767_225_600  # 2026-01-01T00:00:00Z
NEVER = "0001-01-01T00:00:00Z"


def sha(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


@dataclass
class Stock:
    """An image: references as Docker prints them, and (diff ID, bytes) of each layer."""

    id: str
    tags: list[str]
    digests: list[str]
    layers: list[tuple[str, int]]
    parent: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    created: int = EPOCH
    last_tagged: str = NEVER

    @property
    def chains(self) -> list[str]:
        diff_ids = [diff_id for diff_id, _size in self.layers]
        return [chain_of(diff_ids[: n + 1]) for n in range(len(diff_ids))]

    @property
    def size(self) -> int:
        return sum(size for _diff_id, size in self.layers)


@dataclass
class User:
    """A container."""

    id: str
    name: str
    image_id: str
    state: str
    ended: str = NEVER


class StockedEngine(EngineStub):
    """`stock` puts an image there, `use` a container."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.shelf: dict[str, Stock] = {}
        self.users: dict[str, User] = {}
        # Containers that start to use an image when its removal is asked for.
        self.late: list[tuple[str, str]] = []
        # Says that it is deleted, and keeps it.
        self.keeps = ""
        # What happens right before the nth look at an image (GET /images/<id>/json, from 1).
        self.before_look: dict[int, Callable[[], None]] = {}
        self.services: list[dict[str, Any]] = []
        self.build_cache: list[dict[str, Any]] = []
        self._looks = 0

    def stock(self, *tags: str, layers: dict[str, int], parent: str = "", **more: Any) -> str:
        """The ID of a new image with these layers (name -> bytes) above those of its parent."""
        below = self.shelf[parent].layers if parent else []
        own = [(sha(name), size) for name, size in layers.items()]
        id_ = sha(f"image of {[*below, *own]} {tags[:1]} {more}")
        more.setdefault("digests", [])
        self.shelf[id_] = Stock(id_, list(tags), layers=[*below, *own], parent=parent, **more)
        return id_

    def use(self, name: str, image: str, state: str = "exited", ended: str = NEVER) -> str:
        id_ = sha(name)[7:]
        self.users[id_] = User(id_, name, image, state, ended)
        return id_

    def also(self, method: str, path: str, query: dict[str, str]) -> tuple[int, Any] | None:
        for pattern, answer in ROUTES:
            found = re.fullmatch(pattern, f"{method} {path}")
            if found:
                return answer(self, *found.groups(), **{"query": query})  # type: ignore[operator]
        return None

    # reads

    def named(self, name: str) -> Stock | None:
        for one in self.shelf.values():
            if name in (one.id, *one.tags, *self.pinned(one)):
                return one
        return None

    def pinned(self, one: Stock) -> list[str]:
        """On containerd every tag has its digest, and the list names that of one repository."""
        if self.classic:
            return one.digests
        return [*one.digests, *(f"{_repository(tag)}@{one.id}" for tag in one.tags)]

    def children(self, id_: str) -> list[str]:
        return [one.id for one in self.shelf.values() if one.parent == id_]

    def users_of(self, id_: str) -> list[User]:
        return [user for user in self.users.values() if user.image_id == id_]

    def list_images(self, query: dict[str, str]) -> tuple[int, Any]:
        everything = query.get("all") == "1"
        shown = [
            one
            for one in self.shelf.values()
            if everything or one.tags or one.digests or not self.children(one.id)
        ]
        told = query.get("shared-size") == "1" and self.api != "1.41"
        return 200, self.listings(shown, told)

    def listings(self, shown: list[Stock], shared: bool) -> list[dict[str, Any]]:
        held = Counter(chain for one in shown for chain in one.chains) if shared else None
        return [self.listing(one, held) for one in shown]

    def listing(self, one: Stock, held: Counter[str] | None) -> dict[str, Any]:
        old = self.api == "1.41"
        digests: Any = self.pinned(one)[-1:] or (None if old else [])
        tags: Any = one.tags or (None if old else [])
        if old and not (tags or digests):
            tags, digests = ["<none>:<none>"], ["<none>@<none>"]
        entry = {
            "Id": one.id,
            "ParentId": one.parent,
            "RepoTags": tags,
            "RepoDigests": digests,
            "Created": one.created,
            "Labels": one.labels or None,
            "Size": one.size if self.classic else 2 * one.size,
            "SharedSize": -1 if held is None else self.shared(one, held),
            "Containers": -1,
        }
        if self.kind == "containerd":
            data = {"Platform": {"os": "linux", "architecture": "amd64"}, "Size": {"Unpacked": 1}}
            entry["Manifests"] = [
                {"ID": one.id, "Kind": "image", "Available": True, "ImageData": data}
            ]
        return entry

    def shared(self, one: Stock, held: Counter[str]) -> int:
        pairs = zip(one.chains, one.layers)
        return sum(size for chain, (_layer, size) in pairs if held[chain] > 1)

    def list_containers(self, query: dict[str, str]) -> tuple[int, Any]:
        assert query == {"all": "1"}
        return 200, [
            {
                "Id": user.id,
                "Names": [f"/web/{user.name}", f"/{user.name}"],
                "Image": user.image_id,
                "ImageID": user.image_id,
                "State": user.state,
                "Created": EPOCH,
            }
            for user in self.users.values()
        ]

    def layers_size(self) -> int:
        sizes = dict(
            pair for one in self.shelf.values() for pair in zip(one.chains, one.layers)
        ).values()
        return sum(size for _diff_id, size in sizes) * (2 if self.kind == "containerd" else 1)

    def usage(self, query: dict[str, str]) -> tuple[int, Any]:
        if self.api != "1.41" and query == {"type": "build-cache"}:
            return 200, {"BuildCache": self.build_cache or None}
        assert query == ({} if self.api == "1.41" else {"type": "image"})
        images = self.listings(list(self.shelf.values()), True)
        cache = {"BuildCache": self.build_cache} if self.api == "1.41" else {}
        return 200, {"LayersSize": self.layers_size(), "Images": images, **cache}

    def describe_container(self, id_: str, query: dict[str, str]) -> tuple[int, Any]:
        user = self.users[id_]
        return 200, {"State": {"Running": user.state == "running", "FinishedAt": user.ended}}

    def list_services(self, query: dict[str, str]) -> tuple[int, Any]:
        return 200, self.services

    def prune_cache(self, query: dict[str, str]) -> tuple[int, Any]:
        size = sum(one["Size"] for one in self.build_cache)
        self.build_cache = []
        return 200, {"CachesDeleted": ["x"], "SpaceReclaimed": size}

    def give_tag(self, name: str, query: dict[str, str]) -> tuple[int, Any]:
        one = self.named(name)
        if one is None:
            return _unknown(name)
        one.tags.append(f"{query['repo']}:{query['tag']}")
        return 201, None

    def describe(self, name: str, query: dict[str, str]) -> tuple[int, Any]:
        self._looks += 1
        self.before_look.pop(self._looks, lambda: None)()
        one = self.named(name)
        if one is None:
            return _unknown(name)
        return 200, {
            "Id": one.id,
            "RepoTags": one.tags,
            "Os": "linux",
            "Architecture": "amd64",
            "RootFS": {"Type": "layers", "Layers": [diff_id for diff_id, _size in one.layers]},
            "Metadata": {"LastTagTime": one.last_tagged},
        }

    def history(self, name: str, query: dict[str, str]) -> tuple[int, Any]:
        one = self.named(name)
        if one is None:
            return _unknown(name)
        # A line such as ENV makes no layer.
        steps = [{"Size": 0}, *({"Size": size} for _diff_id, size in reversed(one.layers))]
        return 200, steps

    # removals

    def remove_image(self, name: str, query: dict[str, str]) -> tuple[int, Any]:
        assert "force" not in query, "an image in use would lose its record and keep its layers"
        one = self.named(name)
        if one is None:
            return _unknown(name)
        for who, image in self.late:
            self.use(who, image)
        self.late = []
        left = [ref for ref in (*one.tags, *one.digests) if ref != name]
        if name == one.id and len({_repository(ref) for ref in left} | set(one.tags)) > 2:
            return 409, {
                "message": f"conflict: {name[7:19]} is referenced in multiple repositories"
            }
        if name == one.id:
            left = []
        elif _repository(name) not in {_repository(tag) for tag in one.tags if tag != name}:
            left = [ref for ref in left if _repository(ref) != _repository(name)]
        if not left and self.users_of(one.id):
            who = self.users_of(one.id)[0].id[:12]
            return 409, {
                "message": f"conflict: unable to delete {name} - container {who} is using it"
            }
        if name == one.id and self.classic and self.children(name):
            return 409, {"message": f"conflict: {name[7:19]} has dependent child images"}
        return 200, list(self._removal(one, left, query.get("noprune") != "1", name == one.id))

    def _removal(
        self, one: Stock, left: list[str], prune: bool, by_id: bool = False
    ) -> Iterator[dict[str, str]]:
        for ref in (*one.tags, *one.digests):
            if ref not in left:
                yield {"Untagged": ref}
        if self.keeps != one.id:
            one.tags = [tag for tag in one.tags if tag in left]
            one.digests = [ref for ref in one.digests if ref in left]
        if left:
            return
        if self.children(one.id) and self.classic:
            return
        yield {"Deleted": one.id}
        if (self.children(one.id) and not by_id) or self.keeps == one.id:
            return
        del self.shelf[one.id]
        held = {chain for other in self.shelf.values() for chain in other.chains}
        if self.classic:
            yield from ({"Deleted": chain} for chain in reversed(one.chains) if chain not in held)
        above = self.shelf.get(one.parent)
        busy = above is None or above.tags or above.digests or self.children(above.id)
        if above and prune and not busy and not self.users_of(above.id):
            yield from self._removal(above, [], prune)

    def stop_container(self, id_: str, query: dict[str, str]) -> tuple[int, Any]:
        user = self.users.get(id_)
        if user is None:
            return 404, {"message": f"No such container: {id_}"}
        stopped, user.state = user.state == "exited", "exited"
        return (304 if stopped else 204), None

    def remove_container(self, id_: str, query: dict[str, str]) -> tuple[int, Any]:
        user = self.users.get(id_)
        if user is None:
            return 404, {"message": f"No such container: {id_}"}
        if user.state in ("running", "paused"):
            return 409, {"message": f"You cannot remove a {user.state} container {id_}"}
        del self.users[id_]
        return 204, None


def _unknown(name: str) -> tuple[int, Any]:
    return 404, {"message": f"No such image: {name}"}


def _repository(ref: str) -> str:
    name = ref.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]


ROUTES = (
    (r"GET /images/json", StockedEngine.list_images),
    (r"GET /containers/json", StockedEngine.list_containers),
    (r"GET /containers/([^/]+)/json", StockedEngine.describe_container),
    (r"GET /services", StockedEngine.list_services),
    (r"POST /build/prune", StockedEngine.prune_cache),
    (r"POST /images/(.+)/tag", StockedEngine.give_tag),
    (r"GET /system/df", StockedEngine.usage),
    (r"GET /images/(.+)/history", StockedEngine.history),
    (r"GET /images/(.+)/json", StockedEngine.describe),
    (r"DELETE /images/(.+)", StockedEngine.remove_image),
    (r"POST /containers/([^/]+)/stop", StockedEngine.stop_container),
    (r"DELETE /containers/([^/]+)", StockedEngine.remove_container),
)
