"""Whether a refusal is right: its ground must be seen in what is on both nodes, without asking hoster."""

from __future__ import annotations

from collections.abc import Sequence

from hoster.model.plan import Ground
from tests.campaign.judge import versions_of
from tests.campaign.world import ACTIVE, Target, World, id_of
from tests.zfsmodel.state import Dataset, Snapshot, is_below


def is_justified(world: World, target: Target, vm: str, ground: Ground) -> bool:
    """Whether what is there now is what the ground speaks of, for any of the VM's datasets."""
    pairs = [(source, world.replica(target, source)) for source in world.datasets_of(vm)]
    both = [(source, replica) for source, replica in pairs if replica is not None]
    raw = [(source, replica) for source, replica in both if source.encrypted and not target.no_raw]
    match ground:
        case Ground.FOREIGN_DATASET:
            return any(replica.properties.get("hoster:id") != id_of(vm) for _, replica in both) or (
                _parts(both) and _has_theirs_below(world, target, vm)
            )
        case Ground.NO_COMMON_VERSION:
            return any(_has_nothing_in_common(source, replica, id_of(vm)) for source, replica in both)
        case Ground.REPLICA_AHEAD:
            # Of any dataset: what somebody else took must not go along when another one's part is set aside.
            newer = [one for source, replica in both for one in _newer(source, replica)]
            in_the_way = any(one.written for one in newer) or any(_newer(*pair) for pair in raw)
            return in_the_way and any(_is_theirs(one, id_of(vm)) for one in newer)
        case Ground.NAME_TAKEN:
            return any(_clashes(source, replica) for source, replica in both)
        case Ground.REPLICA_MODIFIED:
            return any(replica.written for _, replica in both)
        case Ground.REPLICA_MOUNTED:
            return any(one.mounted for one in _tree(world, target, vm))
        case Ground.DESCENDANT_RENAMED:
            return _was_renamed(world, target, vm)
        case Ground.MODE_MISMATCH:
            began = [(source.encrypted and not target.no_raw, _is_raw(replica)) for source, replica in both]
            return any(before is not now for now, before in began)
        case Ground.KEY_CHANGED:
            return any(
                source.key_root and _opens_with(replica) != source.key_root.wrapping
                for source, replica in raw
            )
        case Ground.KEY_NOT_LOADED:
            return target.no_raw and any(not source.key_available for source, _ in pairs)
        case Ground.WOULD_LIE_READABLE:
            above = [f"{one.name}/" for one, _ in pairs if one.encrypted]
            plain = any(not one.encrypted and one.name.startswith(tuple(above)) for one, _ in pairs)
            decrypted = target.no_raw and bool(above) and not world.is_sealed(target)
            return decrypted or (plain and not target.no_raw and target not in world.readable)
        case _:
            return False


def _is_raw(replica: Dataset) -> bool:
    return replica.properties.get("hoster:mode") == "raw"


def _opens_with(replica: Dataset) -> int:
    return 0 if replica.key_root is None else replica.key_root.wrapping


def _tree(world: World, target: Target, vm: str) -> list[Dataset]:
    """What lies at and below the replica of a VM."""
    node, root = world.node_of(target), target.name_of(f"{ACTIVE}/{vm}")
    return [one for one in node.datasets.values() if is_below(one.name, root)]


def _has_theirs_below(world: World, target: Target, vm: str) -> bool:
    return any(one.properties.get("hoster:id") != id_of(vm) for one in _tree(world, target, vm))


def _parts(both: Sequence[tuple[Dataset, Dataset]]) -> bool:
    return any(_newer(source, replica) for source, replica in both)


def _has_nothing_in_common(source: Dataset, replica: Dataset, identity: str) -> bool:
    ours = replica.properties.get("hoster:id") == identity
    return ours and not replica.inconsistent and versions_of(source).isdisjoint(_guids(replica))


def _guids(dataset: Dataset) -> set[int]:
    return {one.guid for one in dataset.snapshots}


def _newer(source: Dataset, replica: Dataset) -> list[Snapshot]:
    known = versions_of(source)
    common = [one for one in replica.snapshots if one.guid in known]
    return replica.since(common[-1]) if common else []


def _is_theirs(one: Snapshot, identity: str) -> bool:
    return one.properties.get("hoster:from", "").partition("/")[0] != identity


def _clashes(source: Dataset, replica: Dataset) -> bool:
    there = {one.name: one.guid for one in replica.snapshots}
    return any(there.get(one.name, one.guid) != one.guid for one in source.snapshots)


def _was_renamed(world: World, target: Target, vm: str) -> bool:
    node = world.node_of(target)
    sources = world.datasets_of(vm)
    expected = {target.name_of(one.name) for one in sources}
    root = target.name_of(f"{ACTIVE}/{vm}")
    orphans = [one for one in node.below(root) if one.name not in expected]
    missing = [one for one in sources if world.replica(target, one) is None]
    return any(versions_of(source) & _guids(orphan) for source in missing for orphan in orphans)
