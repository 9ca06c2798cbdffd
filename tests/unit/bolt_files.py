# Copyright (c) 2026, The fleet.images authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes bbolt databases of nested dicts: inline buckets, pages of leaves, pages of branches."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

PAGE = 4096
INLINE = PAGE // 4  # bbolt's limit for a bucket within its parent's page
FULL = 3000  # bytes of a leaf page, so that many keys need several

Tree = "dict[bytes, Any]"


def write(path: Path, tree: Tree, change: int = 5) -> Path:
    """A database with these contents; the older of its two meta pages names an empty one."""
    pages: dict[int, bytes] = {}
    root = _store(tree, pages)
    empty = _store({}, pages)
    high = max(number + len(page) // PAGE for number, page in pages.items())
    pages[change % 2] = _meta(root, high, change, change % 2)
    pages[(change - 1) % 2] = _meta(empty, high, change - 1, (change - 1) % 2)
    content = bytearray(high * PAGE)
    for number, page in pages.items():
        content[number * PAGE : number * PAGE + len(page)] = page
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _meta(root: int, high: int, change: int, number: int) -> bytes:
    fields = struct.pack("<IIII QQ QQQ", 0xED0CDAED, 2, PAGE, 0, root, 0, 2, high, change)
    value = 0xCBF29CE484222325
    for byte in fields:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return struct.pack("<QHHI", number, 4, 0, 0) + fields + struct.pack("<Q", value)


def _store(tree: Tree, pages: dict[int, bytes]) -> int:
    """Puts a bucket on pages of its own, and returns the number of its root page."""
    entries = [(key, *_value(value, pages)) for key, value in sorted(tree.items())]
    groups: list[list[tuple[bytes, int, bytes]]] = [[]]
    size = 0
    for entry in entries:
        size += 16 + len(entry[0]) + len(entry[2])
        if size > FULL and groups[-1]:
            groups.append([])
            size = 0
        groups[-1].append(entry)
    leaves = [(group[0][0] if group else b"", _page(_leaf(group), pages)) for group in groups]
    return leaves[0][1] if len(leaves) == 1 else _page(_branch(leaves), pages)


def _value(value: Any, pages: dict[int, bytes]) -> tuple[int, bytes]:
    """Flags and bytes of a value."""
    if isinstance(value, bytes):
        return 0, value
    plain = all(isinstance(one, bytes) for one in value.values())
    leaf = _leaf([(key, 0, one) for key, one in sorted(value.items())]) if plain else b""
    if plain and len(leaf) <= INLINE:
        return 1, struct.pack("<QQ", 0, 0) + leaf
    return 1, struct.pack("<QQ", _store(value, pages), 0)


def _leaf(entries: list[tuple[bytes, int, bytes]]) -> bytes:
    head, body = struct.pack("<QHHI", 0, 2, len(entries), 0), b""
    for number, (key, flags, value) in enumerate(entries):
        position = 16 * (len(entries) - number) + len(body)
        head += struct.pack("<IIII", flags, position, len(key), len(value))
        body += key + value
    return head + body


def _branch(children: list[tuple[bytes, int]]) -> bytes:
    head, body = struct.pack("<QHHI", 0, 1, len(children), 0), b""
    for number, (key, page) in enumerate(children):
        position = 16 * (len(children) - number) + len(body)
        head += struct.pack("<IIQ", position, len(key), page)
        body += key
    return head + body


def _page(content: bytes, pages: dict[int, bytes]) -> int:
    number = max((at + len(page) // PAGE for at, page in pages.items()), default=3)
    content += bytes(-len(content) % PAGE)
    pages[number] = content
    return number
