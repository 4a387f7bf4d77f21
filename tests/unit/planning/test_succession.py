"""Who may run a VM, and what a replica goes on from when it takes over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hoster.model.plan import Ground, Refusal
from hoster.model.storage import Dataset, Epoch, Marks, ResumeToken, Role
from hoster.planning.succession import (
    Standing,
    Takeover,
    Witness,
    complete_versions,
    next_epoch,
    plan_takeover,
    standing,
)
from hoster.testing import dataset

EPOCHS = st.one_of(st.none(), st.builds(Epoch, st.integers(1, 4), st.sampled_from(["a", "b", "c"])))
FIRST = Epoch(1, "node1")


def replica(name: str, history: str, **marks: object) -> Dataset:
    made = dataset(name, history)
    return replace(made, marks=Marks("id", **{"role": Role.REPLICA, "epoch": FIRST, **marks}))  # type: ignore[arg-type]


def taken(plan: Takeover | Refusal) -> Takeover:
    assert isinstance(plan, Takeover)
    return plan


@given(EPOCHS, EPOCHS)
def test_of_two_copies_never_both_are_superseded_and_a_split_is_one_from_both_sides(
    one: Epoch | None, other: Epoch | None
) -> None:
    here, there = standing(one, other), standing(other, one)
    assert not (here is there is Standing.SUPERSEDED)
    assert (here is Standing.SPLIT) == (there is Standing.SPLIT)
    assert (here is there is Standing.CURRENT) == (one == other)


@given(st.lists(EPOCHS), st.sampled_from(["a", "b"]))
def test_a_promotion_comes_after_everything_that_is_known(known: list[Epoch | None], node: str) -> None:
    epoch = next_epoch(known, node)
    assert epoch.node == node
    assert all(standing(epoch, other) is Standing.CURRENT for other in known)


def test_equal_numbers_of_different_nodes_are_a_split() -> None:
    assert standing(Epoch(2, "b"), Epoch(2, "c")) is Standing.SPLIT
    assert standing(Epoch(2, "b"), Epoch(3, "c")) is Standing.SUPERSEDED
    assert standing(None, Epoch(1, "a")) is Standing.SUPERSEDED
    assert standing(Epoch(1, "a"), None) is Standing.CURRENT


@pytest.mark.parametrize(
    ("root", "others", "name", "members"),
    [
        pytest.param(
            "r1! r2! r3", ["r1! r2! r3", "r1!"], 3, 2, id="one was gone before the newest marked one"
        ),
        pytest.param("r1! r2! r3", ["r1! r2!"], 2, 2, id="the newest never arrived whole"),
        pytest.param("r1 r2", ["r1"], 1, 2, id="nothing was marked yet"),
        pytest.param("r1! r2!", [], 2, 1, id="one dataset alone"),
        pytest.param("r1! r2!", ["r2!"], 2, 2, id="a disk that came later"),
    ],
)
def test_the_newest_whole_version(root: str, others: list[str], name: int, members: int) -> None:
    datasets = [replica("t/web", root), *(replica(f"t/web/d{n}", text) for n, text in enumerate(others))]
    found = complete_versions(datasets)
    assert len(found) == members
    assert {snapshot.name for _, snapshot in found} == {f"replication_2024-01-01_00-{name:02d}-00"}


def test_a_replica_takes_over_from_its_newest_version() -> None:
    plan = taken(plan_takeover("web", [replica("t/web", "r1! r2!")], "node2", []))
    assert plan.epoch == Epoch(2, "node2")
    assert plan.versions[0][1].name.endswith("00-02-00")
    assert plan.taken_at == plan.versions[0][1].creation
    assert (plan.set_aside, plan.give_up, plan.evidence) == (False, (), ())


def test_where_nothing_whole_has_arrived_it_is_refused() -> None:
    plan = plan_takeover("web", [replica("t/web", "")], "node2", [])
    assert isinstance(plan, Refusal)
    assert plan.ground is Ground.NOTHING_WHOLE
    assert "hoster vm restore web --from" in plan.remedy


def test_what_is_partly_there_is_given_up_or_set_aside_and_said() -> None:
    root = replace(replica("t/web", "r1! r2! r3"), partial=ResumeToken("1-x"))
    plan = taken(plan_takeover("web", [root, replica("t/web/disk1", "r1! r2!")], "node2", []))
    assert plan.set_aside
    assert plan.give_up == ("t/web",)
    assert any("on its way to t/web" in text for text in plan.evidence)
    assert any("set aside as a branch" in text for text in plan.evidence)


@pytest.mark.parametrize(
    ("root", "disks", "version"),
    [
        pytest.param("r1!", ["r1!"], "", id="a run came to its end"),
        pytest.param("r1! r2", ["r1! r2"], "", id="the VM's own dataset comes last, so that all has arrived"),
        pytest.param("r1! r2", ["r1!"], "", id="it goes back to one that a run ended with"),
        pytest.param("r1", [], "01", id="the first run of all was cut"),
    ],
)
def test_what_the_first_run_has_brought_may_lack_disks_until_its_end(
    root: str, disks: list[str], version: str
) -> None:
    copies = [replica("t/web", root), *(replica(f"t/web/d{n}", text) for n, text in enumerate(disks))]
    said = [text for text in taken(plan_takeover("web", copies, "node2", [])).evidence if "missing" in text]
    unended = f"the first run, which brought replication_2024-01-01_00-{version}-00, did not come to its end"
    assert said == ([f"{unended}: disks of the VM may be missing"] if version else [])


@pytest.mark.parametrize(
    "marks", [{"role": Role.SUPERSEDED}, {"demoted": True}], ids=["superseded", "demoted"]
)
def test_what_a_copy_wrote_itself_was_brought_by_no_run(marks: dict[str, object]) -> None:
    plan = taken(plan_takeover("web", [replica("t/web", "r1! mine", **marks)], "node2", []))
    assert not any("may be missing" in text for text in plan.evidence)


def test_a_superseded_copy_says_what_it_is() -> None:
    plan = taken(plan_takeover("web", [replica("t/web", "r1!", role=Role.SUPERSEDED)], "node1", []))
    assert any("marked superseded" in text for text in plan.evidence)


def test_a_primary_that_answers_and_a_newer_version_elsewhere_are_evidence() -> None:
    mine = [replica("t/web", "r1!")]
    theirs = Witness("node1", (replica("tank/web", "r1 r2", role=Role.PRIMARY),))
    plan = taken(plan_takeover("web", mine, "node2", [theirs]))
    assert plan.evidence[0] == "node1 answers, and its copy may run (epoch 1@node1)"
    assert plan.evidence[1].startswith("node1 has a newer version: replication_2024-01-01_00-02-00 (guid ")


def test_older_or_strange_copies_elsewhere() -> None:
    mine = [replica("t/web", "r1! r2!")]
    older = Witness("node3", (replica("tank/web", "r1! r2!", epoch=Epoch(4, "node3")),))
    strange = Witness("node4", (replica("tank/web", "d1"),))
    plan = taken(plan_takeover("web", mine, "node2", [older, strange, Witness("node5")]))
    assert plan.epoch == Epoch(5, "node2"), "an epoch that another node was told of counts"
    assert [text.partition(":")[0] for text in plan.evidence] == ["node4 has a newer version"]
    behind = Witness("node6", (replica("tank/web", "old r1! r2!"),))
    assert taken(plan_takeover("web", mine, "node2", [behind])).evidence == ()


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (
            {"epoch": Epoch(2, "node3"), "parent": "node3"},
            ("node4 was told that node3 has taken it over (epoch 2@node3)",),
        ),
        ({"epoch": Epoch(2, "node3"), "parent": "node3", "demoted": True}, ()),
        ({"epoch": FIRST}, ()),
    ],
    ids=["told", "gave way", "knows of none"],
)
def test_a_primary_hears_of_a_later_one_from_whoever_was_told(
    told: dict[str, object], said: tuple[str, ...]
) -> None:
    mine = [replica("t/web", "r1 r2", role=Role.PRIMARY)]
    witness = Witness("node4", (replica("tank/web", "r1!", **told),))
    assert taken(plan_takeover("web", mine, "node1", [witness])).evidence == said


def test_a_primary_that_hands_over_is_no_evidence() -> None:
    mine = [replica("t/web", "r1! r2!")]
    theirs = Witness("node1", (replica("tank/web", "r1 r2", role=Role.PRIMARY),))
    assert taken(plan_takeover("web", mine, "node2", [theirs], FIRST)).evidence == ()
    other = taken(plan_takeover("web", mine, "node2", [theirs], Epoch(7, "node9")))
    assert other.evidence == ("node1 answers, and its copy may run (epoch 1@node1)",)


@pytest.mark.parametrize(
    "marks", [{"role": Role.PRIMARY}, {"role": Role.SUPERSEDED}, {"demoted": True}], ids=str
)
def test_a_copy_that_ran_here_before_never_goes_back(marks: dict[str, object]) -> None:
    root, disk = replica("t/web", "r1! r2! mine ~7", **marks), replica("t/web/disk1", "r1! r2!", **marks)
    empty = replica("t/web/new", "", **marks)
    plan = taken(plan_takeover("web", [root, disk, empty], "node1", []))
    assert not plan.set_aside
    assert [snapshot.name[-5:] for _, snapshot in plan.versions] == ["mine", "02-00"]
    nothing = plan_takeover("web", [replica("t/web", "", **marks)], "node1", [])
    assert isinstance(nothing, Refusal)
