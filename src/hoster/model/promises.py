"""How far a VM's replicas may lag: what an administrator has promised. Pure values."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec import Struct, field

DEFAULT_RPO_MINUTES = 24 * 60


class Promises(Struct, frozen=True):
    """Minutes by which the data on a target may be older than those here, at most.

    ``by_vm`` goes before ``by_tag``, and that before ``rpo_minutes``, which holds for all others.
    """

    rpo_minutes: int = DEFAULT_RPO_MINUTES
    by_vm: Mapping[str, int] = field(default_factory=dict)
    by_tag: Mapping[str, int] = field(default_factory=dict)

    def rpo_s(self, vm: str, tags: Collection[str] = ()) -> int:
        """The promise for a VM, in seconds; of several tags that have one, the strictest."""
        if vm in self.by_vm:
            return self.by_vm[vm] * 60
        return min((self.by_tag[tag] for tag in tags if tag in self.by_tag), default=self.rpo_minutes) * 60
