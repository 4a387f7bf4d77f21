"""The verbs that move history about: clone, promote, rename, rollback, destroy."""

from __future__ import annotations

from collections.abc import Mapping

from tests.zfsmodel.node import MISSING, ModelNode
from tests.zfsmodel.properties import check_value, value_of
from tests.zfsmodel.state import Dataset, Failed, KernelPanicked, Kind, Snapshot, is_below, parent_of, split


def clone(node: ModelNode, source: str, target: str, properties: Mapping[str, str]) -> None:
    """``zfs clone``. The clone has none of its origin's local properties, and is encrypted by its key."""
    owner, origin = node.snapshot_named(source)
    pool = target.partition("/")[0]
    if pool != source.partition("/")[0].partition("@")[0]:
        raise Failed(f"cannot create '{target}': source and target pools differ")
    node.check_new(target)
    for key, value in properties.items():
        check_value(key, value, owner.kind, f"cannot create '{target}'")
    node.next_txg(target)
    made = node.new_dataset(target, owner.kind)
    made.content, made.written, made.origin = origin.content, 0, origin
    made.properties = dict(properties)
    if owner.kind is Kind.VOLUME:
        made.properties["volsize"] = owner.properties["volsize"]
    made.key_root, made.master = owner.key_root, owner.master
    node.datasets[target] = made
    if not node.mount(made):
        where = value_of(node.datasets, made, "mountpoint").text
        raise Failed(
            f"cannot mount '{where}': encryption key not loaded\n"
            "filesystem successfully created, but not mounted",
            status=0 if node.openzfs >= (2, 4) else 1,
        )


def promote(node: ModelNode, name: str) -> None:
    """``zfs promote``: snapshots and bookmarks up to the origin move to the clone.

    KernelPanicked if a bookmark would move to where one has its name (VERIFY0 in
    ``dsl_bookmark_node_add()``, seen on OpenZFS 2.3.9): nobody may ever get there.
    """
    dataset = node.dataset(name)
    origin = dataset.origin
    if origin is None:
        raise Failed(f"cannot promote '{name}': not a cloned filesystem")
    owner = node.owner(origin)
    moved = [one for one in owner.snapshots if one.createtxg <= origin.createtxg]
    marks = [one for one in owner.bookmarks.values() if one.createtxg <= origin.createtxg]
    for one in moved:
        if dataset.find(one.name) is not None:
            parent = f"{owner.name}@{origin.name}"
            raise Failed(f"cannot promote '{name}': conflicting snapshot '{one.name}' from parent '{parent}'")
    for mark in marks:
        if mark.name in dataset.bookmarks:
            raise KernelPanicked(f"promote {name}: both have a bookmark called {mark.name}")
    node.next_txg(name)
    owner.snapshots = [one for one in owner.snapshots if one not in moved]
    dataset.snapshots = moved + dataset.snapshots
    for mark in marks:
        dataset.bookmarks[mark.name] = owner.bookmarks.pop(mark.name)
    dataset.origin, owner.origin = owner.origin, origin
    if owner.key_root is owner and dataset.key_root is owner:
        # The clone is opened with the same key, which is not loaded any more (seen on OpenZFS 2.3.9).
        dataset.key_loaded = owner.key_loaded = False
        dataset.wrapping = owner.wrapping
        for other in node.datasets.values():
            other.key_root = dataset if other.key_root is owner else other.key_root


def rename(node: ModelNode, old: str, new: str) -> None:
    """``zfs rename`` of a dataset with all below it, or of one snapshot; refused where a mount is in use."""
    if "@" in old:
        _rename_snapshot(node, old, new)
        return
    dataset = node.dataset(old)
    if new == old:
        return
    if new.partition("/")[0] != old.partition("/")[0]:
        raise Failed(f"cannot rename to '{new}': datasets must be within same pool")
    if new.startswith(f"{old}/"):
        raise Failed(
            f"cannot rename to '{new}': New dataset name cannot be a descendant of current dataset name"
        )
    parent = node.datasets.get(parent_of(new))
    if parent is None:
        raise Failed(f"cannot create '{new}': parent does not exist")
    if new in node.datasets:
        raise Failed(f"cannot rename '{old}': dataset already exists")
    if parent.kind is Kind.VOLUME:
        raise Failed(f"cannot create '{new}': parent is not a filesystem")
    inherits = dataset.key_root is not None and dataset.key_root is not dataset
    if inherits and parent_of(old) != parent.name and parent.key_root is not dataset.key_root:
        raise Failed(f"cannot rename '{old}': cannot move encrypted child outside of its encryption root")
    tree = [dataset, *node.below(old)]
    for one in tree:
        _check_unmountable(node, one)
    node.next_txg(old)
    for one in tree:
        del node.datasets[one.name]
        one.name = f"{new}{one.name[len(old) :]}"
    for one in tree:
        node.datasets[one.name] = one


def _rename_snapshot(node: ModelNode, old: str, new: str) -> None:
    dataset, snapshot = node.snapshot_named(old)
    where, _, label = split(new)
    if where != dataset.name:
        raise Failed(f"cannot rename to '{new}': snapshots must be part of same dataset")
    if dataset.find(label) is not None:
        raise Failed(f"cannot rename '{old}': dataset already exists")
    node.next_txg(dataset.name)
    snapshot.name = label


def rollback(node: ModelNode, full_name: str) -> None:
    """``zfs rollback``, never ``-r``: refused if anything newer exists, a bookmark included."""
    dataset, snapshot = node.snapshot_named(full_name)
    newer = [f"{dataset.name}@{one.name}" for one in dataset.since(snapshot)]
    newer += [
        f"{dataset.name}#{one.name}"
        for one in dataset.bookmarks.values()
        if one.createtxg > snapshot.createtxg
    ]
    if newer:
        raise Failed(
            f"cannot rollback to '{full_name}': more recent snapshots or bookmarks exist\n"
            "use '-r' to force deletion of the following snapshots and bookmarks:\n" + "\n".join(newer)
        )
    node.next_txg(dataset.name)
    node.set_content(dataset, snapshot.content, "rollback")


def destroy(node: ModelNode, full_name: str) -> None:
    """``zfs destroy`` of one dataset, snapshot or bookmark; never ``-r``."""
    name, sign, short = split(full_name)
    if sign == "#":
        if name not in node.datasets or short not in node.datasets[name].bookmarks:
            raise Failed(f"bookmark '{full_name}' does not exist.")
        node.next_txg(name)
        del node.datasets[name].bookmarks[short]
        return
    dataset = node.dataset(name)
    if sign == "@":
        found = dataset.find(short)
        if found is None:
            raise Failed("could not find any snapshots to destroy; check snapshot names.")
        _destroy_snapshot(node, dataset, found)
        return
    _destroy_dataset(node, dataset)


def busy_number(node: ModelNode, dataset: Dataset, snapshot: Snapshot) -> int:
    """The error number that keeps a snapshot from being destroyed (errno(3)), or 0."""
    if snapshot.holds:
        return 16
    return 17 if node.clones_of(snapshot) else 0


def _destroy_snapshot(node: ModelNode, dataset: Dataset, snapshot: Snapshot) -> None:
    full_name = f"{dataset.name}@{snapshot.name}"
    clones = node.clones_of(snapshot)
    if clones:
        listed = "\n".join(["use '-R' to destroy the following datasets:", *clones])
        raise Failed(f"cannot destroy '{full_name}': snapshot has dependent clones\n{listed}")
    if snapshot.holds:
        held = f"it's being held. Run 'zfs holds -r {full_name}' to see holders."
        if node.openzfs < (2, 3):
            held = "dataset is busy"
        raise Failed(f"cannot destroy snapshot {full_name}: {held}")
    node.next_txg(dataset.name)
    node.drop(dataset, snapshot, "destroy")


def _destroy_dataset(node: ModelNode, dataset: Dataset) -> None:
    name = dataset.name
    if name in node.pools:
        raise Failed(
            f"cannot destroy '{name}': operation does not apply to pools\n"
            f"use 'zfs destroy -r {name}' to destroy all datasets in the pool\n"
            f"use 'zpool destroy {name}' to destroy the pool itself"
        )
    children = [one.name for one in node.datasets.values() if is_below(one.name, name) and one.name != name]
    children += [f"{name}/%recv"] if dataset.partial is not None and not dataset.inconsistent else []
    children += [f"{name}@{one.name}" for one in dataset.snapshots]
    if children:
        listed = "\n".join(["use '-r' to destroy the following datasets:", *children])
        raise Failed(f"cannot destroy '{name}': {dataset.kind.value} has children\n{listed}")
    _check_unmountable(node, dataset)
    node.next_txg(name)
    if dataset.written:
        node.tell(name, None, "destroy")
    del node.datasets[name]


def _check_unmountable(node: ModelNode, dataset: Dataset) -> None:
    if dataset.mounted and dataset.busy:
        where = value_of(node.datasets, dataset, "mountpoint").text
        raise Failed(f"cannot unmount '{where}': pool or dataset is busy")


def abort_receive(node: ModelNode, name: str) -> None:
    """``zfs receive -A``: gives up what a cut receive has left."""
    if name not in node.datasets:
        raise Failed(MISSING.format(name), 2)
    dataset = node.datasets[name]
    if dataset.partial is None:
        raise Failed(f"'{name}' does not have any resumable receive state to abort")
    node.next_txg(name)
    dataset.partial = None
    if dataset.inconsistent:
        del node.datasets[name]
