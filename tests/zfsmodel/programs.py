"""hoster's channel programs, recognised by their text, on a model node; the answers are those of the Lua."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from hoster.zfs.programs import ANCHOR, DESTROY, MARK, TELL, TOLD, digits
from tests.zfsmodel.lineage import busy_number
from tests.zfsmodel.node import ModelNode
from tests.zfsmodel.state import Bookmark, Dataset, Failed, Snapshot

_SIZES = {DESTROY: 2, ANCHOR: 3, MARK: 4, TELL: 8}


def run_program(node: ModelNode, pool: str, lua: str, words: Sequence[str]) -> str:
    """What ``zfs program -j POOL -`` prints; Failed if the pool is not there, AssertionError if the program
    is none of hoster's."""
    if pool not in node.pools:
        raise Failed(f"cannot open '{pool}': no such pool")
    assert lua in _SIZES, "a channel program that the model does not know"
    size = _SIZES[lua]
    assert len(words) % size == 0, f"{len(words)} arguments, {size} for each item"
    node.next_txg(pool)
    answers = {}
    for start in range(0, len(words), size):
        item = words[start : start + size]
        answers[item[0]] = _told(node, item) if lua == TELL else _answer(node, lua, item)
    return json.dumps({"return": answers or {}})


def _answer(node: ModelNode, lua: str, item: Sequence[str]) -> str:
    full_name, guid = item[0], item[1]
    try:
        dataset, snapshot = node.snapshot_named(full_name)
    except Failed:
        return "gone"
    if digits(snapshot.guid) != guid and not (lua == ANCHOR and guid == "-"):
        return "changed"
    if lua == DESTROY:
        return _destroy(node, dataset, snapshot)
    if lua == ANCHOR:
        name = f"hoster-{item[2]}-{digits(snapshot.guid)}"
        mark = Bookmark(name, snapshot.guid, snapshot.createtxg, snapshot.ivset)
        dataset.bookmarks.setdefault(name, mark)
        return f"done {digits(snapshot.guid)} {snapshot.createtxg}"
    snapshot.properties[item[2]] = item[3]
    return "done"


def _told(node: ModelNode, item: Sequence[str]) -> str:
    dataset = node.datasets.get(item[0])
    if dataset is None:
        return "gone"
    if digits(dataset.guid) != item[1]:
        return "changed"
    own = dataset.properties
    if [own.get("hoster:role", "-"), own.get("hoster:epoch", "-")] != [*item[2:4]]:
        return "promoted"
    own.update({key: value for key, value in zip(TOLD, item[4:], strict=True) if value != "-"})
    return "done"


def _destroy(node: ModelNode, dataset: Dataset, snapshot: Snapshot) -> str:
    anchored = re.compile(rf"hoster-[0-9a-fA-F]+-{digits(snapshot.guid)}")
    if any(anchored.fullmatch(name) for name in dataset.bookmarks):
        return "anchored"
    number = busy_number(node, dataset, snapshot)
    if number:
        return f"error {number}"
    node.drop(dataset, snapshot, "program")
    return "done"
