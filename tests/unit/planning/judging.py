"""One VM called web, its replica on backup1, and what is decided about them: for the tests beside this."""

from __future__ import annotations

from msgspec.structs import replace

from hoster.model.plan import Refusal
from hoster.model.storage import Dataset, Marks, Mode, ResumeToken, Role
from hoster.planning.refusals import LOCAL, Subject, TargetSite, Terms
from hoster.planning.replication import Clearance, judge
from hoster.testing import dataset, guid_of, name_of, target_key

SITE = TargetSite("backup1", "tank/vm", target_key("1").guid)
ENCRYPTS = replace(SITE, encrypted=True)
HERE = replace(SITE, node=LOCAL)
TARGET = "tank/vm/web"
NO_TERMS = Terms()


def subject(history: str, role: Role = Role.PRIMARY, **below: str) -> Subject:
    """The VM with that history; ``below`` holds the histories of the datasets in it, by name."""
    descendants = tuple(dataset(f"{TARGET}/{name}", below[name]) for name in sorted(below))
    return Subject("web", dataset(TARGET, history, role), role, "node1", descendants)


def encrypted(here: Subject, *below: str, keys: bool = True) -> Subject:
    """The VM with its own dataset encrypted, and those of its descendants that are named."""

    def sealed(one: Dataset) -> Dataset:
        return replace(one, encrypted=True, key_loaded=keys)

    descendants = tuple(
        sealed(one) if one.name.rpartition("/")[2] in below else one for one in here.descendants
    )
    return replace(here, dataset=sealed(here.dataset), descendants=descendants)


def replica(history: str, below: str = "", mode: Mode | None = None) -> Dataset:
    """What the target has of the VM's own dataset, or of the one called ``below`` in it."""
    one = dataset(f"{TARGET}/{below}" if below else TARGET, history, Role.REPLICA)
    return replace(one, marks=replace(one.marks, mode=mode))


def foreign(history: str, vm_id: str | None) -> Dataset:
    """A replica that bears another identity, or none."""
    return replace(replica(history), marks=Marks(vm_id, Role.REPLICA))


def partly(one: Dataset, base: str, through: str, *, raw: bool = False) -> Dataset:
    """``one`` with a part of the stream from ``base`` (``-``: from nothing) to ``through``."""
    start = None if base == "-" else guid_of(base)
    token = ResumeToken("1-a-b-c", guid_of(through), start, f"{one.name}@{name_of(through)}", raw, 5)
    return replace(one, partial=token)


def cleared(
    here: Subject, *there: Dataset | None, site: TargetSite = SITE, terms: Terms = NO_TERMS
) -> Clearance:
    """The clearance for a VM of which the target has ``there``; fails if it is refused."""
    verdict = judge(here, site, TARGET, [one for one in there if one is not None], terms)
    assert isinstance(verdict, Clearance), verdict
    return verdict


def refused(
    here: Subject, *there: Dataset | None, site: TargetSite = SITE, terms: Terms = NO_TERMS
) -> Refusal:
    """The refusal of a VM of which the target has ``there``; fails if it is cleared."""
    verdict = judge(here, site, TARGET, [one for one in there if one is not None], terms)
    assert isinstance(verdict, Refusal), verdict
    assert verdict.vm == "web"
    return verdict
