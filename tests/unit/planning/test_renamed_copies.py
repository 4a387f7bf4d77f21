"""A copy that took the VM over, or was promoted beside it, is seen under whatever name it has by now."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from hoster.model.plan import Ground
from hoster.model.storage import Dataset, Epoch, Marks, Role
from hoster.planning.refusals import Subject, taken_over_beside
from hoster.testing import VM_ID, dataset
from tests.unit.planning.judging import SITE, TARGET, subject

WEB2 = "tank/vm/web2"


def copy(
    name: str = WEB2,
    epoch: str = "2@node2",
    *,
    role: Role = Role.PRIMARY,
    vm_id: str | None = VM_ID,
    demoted: bool = False,
) -> Dataset:
    """A copy on the target with that name."""
    number, _, node = epoch.partition("@")
    marks = Marks(vm_id, role, Epoch(int(number), node), node, demoted=demoted)
    return replace(dataset(name, "a"), marks=marks)


@pytest.mark.parametrize(
    ("found", "ground"),
    [
        pytest.param(copy(), Ground.SUPERSEDED, id="taken over"),
        pytest.param(copy(role=Role.REPLICA), Ground.SUPERSEDED, id="told of it"),
        pytest.param(copy(epoch="1@node2"), Ground.SPLIT, id="promoted beside"),
        pytest.param(copy(epoch="1@node1"), None, id="not promoted"),
        pytest.param(copy(demoted=True), None, id="demoted"),
        pytest.param(copy(role=Role.BRANCH), None, id="a branch"),
        pytest.param(copy(vm_id="another"), None, id="another VM"),
        pytest.param(copy(vm_id=None), None, id="nothing of hoster's"),
        pytest.param(copy(TARGET), None, id="where the replica is: judged as such"),
    ],
)
def test_what_took_it_over_is_told_with_the_name_that_it_has(found: Dataset, ground: Ground | None) -> None:
    beside = [copy("tank/vm/db", "9@node9", vm_id="another"), found]
    one, refusal = taken_over_beside(subject("a b"), SITE, TARGET, beside) or (None, None)
    assert (one, refusal and refusal.ground) == ((found, ground) if ground else (None, None))
    assert refusal is None or WEB2 in refusal.evidence


def test_a_vm_without_an_identity_was_taken_over_by_nobody() -> None:
    here = Subject("web", dataset(TARGET, "a"), Role.PRIMARY, "node1")
    assert taken_over_beside(here, SITE, TARGET, [copy(vm_id=None)]) is None
