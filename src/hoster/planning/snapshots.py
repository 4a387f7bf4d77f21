"""Decides which VMs of a node get a snapshot of a type.

Pure. A VM in which nothing was written since its newest snapshot of that type gets none, so that its
history is not pushed out by copies of the same state.
"""

from __future__ import annotations

from hoster.model.names import SnapshotType
from hoster.model.storage import Dataset
from hoster.planning.retention import typed


def written_since(dataset: Dataset, stype: SnapshotType) -> int | None:
    """Bytes written since the newest snapshot of that type, in whatever snapshots they lie by now.

    None where there is no snapshot of that type. Destroying a snapshot hands its ``written`` on to the
    next one, so the sum over the newer snapshots and the live data is complete::

        h1 d1(8 written) live(0)      hourly  ->  8
        h1 d1(0 written) live(0)      hourly  ->  0
    """
    of_type = typed(dataset, stype)
    if not of_type:
        return None
    newest = of_type[-1]
    later = sum(s.written for s in dataset.snapshots if s.createtxg > newest.createtxg)
    return dataset.written + later
