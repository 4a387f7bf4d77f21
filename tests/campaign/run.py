"""One run of the campaign: a seed decides what happens, what goes wrong, and when; then all must be well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from unittest.mock import patch

from hoster.model.anchors import TargetKey, anchor_name
from hoster.model.plan import Outcome
from hoster.operations import history, sending
from hoster.operations.swapping import new_stamp
from tests.campaign.judge import Judge
from tests.campaign.replications import Replications, Tally, some_fault, words_of
from tests.campaign.steps import Steps
from tests.campaign.world import Target, Violation, World
from tests.zfsmodel.state import Dataset, Kind

STEPS = (15, 40)
MOST_FAULTS = 3


@dataclass
class Result:
    """How a run ended. ``failure`` is empty where all was well; the rest says where it was not."""

    seed: int
    tally: Tally
    failure: str = ""
    step: int = 0
    fault: str = "none"
    trace: list[str] = field(default_factory=list)

    @property
    def line(self) -> str:
        return f"seed={self.seed} step={self.step} fault={self.fault} FAIL {self.failure}"


def run(seed: int) -> Result:
    """The run that the seed stands for."""
    random = Random(seed)
    world = World(random)
    judge = Judge(world)
    tally = Tally()
    steps = Steps(world, judge)
    replications = Replications(world, judge, steps, tally)
    result = Result(seed, tally, trace=world.trace)
    try:
        with _own_time(world):
            _work(world, steps, replications, result)
            _finish(world, judge, replications, result)
    except Exception as error:  # whatever it is: a seed reproduces it
        result.failure = str(error) if isinstance(error, Violation) else f"{type(error).__name__}: {error}"
        result.fault = "none" if replications.fault is None else words_of(replications.fault)
    tally.events.update(judge.limits + world.events)
    return result


def _work(world: World, steps: Steps, replications: Replications, result: Result) -> None:
    random = world.random
    amount = random.randint(*STEPS)
    at = random.sample(range(3, amount), random.randint(0, MOST_FAULTS))
    at[-1:] = [amount - 1] if at and random.random() < 0.5 else at[-1:]
    for number in range(amount):
        result.step = number
        world.trace.append(f"step {number}, {world.clock:%H:%M:%S}")
        target = random.choice(world.targets)
        if number in at:
            steps.prepare()
            replications.run(target, some_fault(world, target))
        elif random.random() < 0.25:
            slip = random.random() < 0.05
            report = replications.run(replace(target, no_raw=target.no_raw is not slip))
            if report is not None and random.random() < 0.2:
                replications.mend(report, target)
        else:
            steps.some()
        world.tick()
        result.tally.steps += 1


def _finish(world: World, judge: Judge, replications: Replications, result: Result) -> None:
    """Nothing goes wrong any more: every target gets everything, and then there is nothing to do."""
    result.step += 1
    world.trace.append("nothing goes wrong any more")
    world.load_keys()
    for target in world.targets:
        replications.converge(target)
    for target in world.targets[:-1]:
        replications.run(target)  # it hears of the other target
    for target in world.targets:
        report = replications.run(target)
        assert report is not None
        busy = [vm for vm in report.vms if vm.outcome is not Outcome.UNCHANGED]
        if busy:
            raise Violation(f"another run to {target.node}", "unchanged", f"{busy[0].vm}: {busy[0].reason}")
        for source in world.all_sources():
            _check_end(world, judge, target, source)
        _check_clean(world, target)


def _check_end(world: World, judge: Judge, target: Target, source: Dataset) -> None:
    replica = world.replica(target, source)
    assert replica is not None
    if replica.content.digest != source.content.digest:
        raise Violation(f"{replica.name} on {target.node}", "the data of its source", "other data")
    common = judge.common(target, source)
    key = TargetKey(world.node_of(target).datasets[target.home].guid)
    anchors = sorted(name for name in source.bookmarks if name.startswith(f"hoster-{key}-"))
    if anchors != [anchor_name(key, common[-1].guid)]:
        raise Violation(f"the anchors of {source.name} for {target.node}", common[-1].name, anchors)
    known = {one.guid: one.createtxg for one in source.snapshots}
    known |= {one.guid: one.createtxg for one in source.bookmarks.values()}
    unmarked = [one.name for one in common if "hoster:from" not in one.properties]
    if unmarked:
        raise Violation(f"{replica.name} on {target.node}", "marked as sent from here", unmarked)
    there = {one.guid for one in replica.snapshots} | judge.pruned[target]
    begun = known[common[0].guid]
    missing = [one.name for one in source.snapshots if one.createtxg > begun and one.guid not in there]
    if missing:
        raise Violation(f"{replica.name} on {target.node}", "every version", f"{missing} missing")
    raw = source.encrypted and not target.no_raw
    if not replica.encrypted and target not in world.readable and (raw or world.is_sealed(target)):
        raise Violation(f"{replica.name} on {target.node}", "encrypted", "readable")
    expected = {"volmode": "none"} if replica.kind is Kind.VOLUME else {"canmount": "noauto"}
    expected |= {"readonly": "on", "hoster:role": "replica", "hoster:mode": "raw" if raw else "plain"}
    got = {key: replica.properties.get(key, "-") for key in expected}
    if got != expected:
        raise Violation(f"{replica.name} on {target.node}", expected, got)


def _check_clean(world: World, target: Target) -> None:
    """No hold, no partial state, no half of a swap is left."""
    for source in world.all_sources():
        held = [s.name for s in source.snapshots if any(tag.startswith("hoster-") for tag in s.holds)]
        if held:
            raise Violation(f"holds on {source.name}", "none", held)
    for dataset in world.node_of(target).datasets.values():
        aside = ".set-aside" in dataset.name
        # An intent that was never whole, on what was then set aside by hand, is looked at by nobody.
        intent = "hoster:swap" in dataset.properties and not aside
        if intent or ".swap-" in dataset.name:
            raise Violation(f"a swap on {target.node}", "finished", dataset.name)
        on_its_own = _is_orphan(world, target, dataset) and ".branch-" not in dataset.name
        if dataset.partial is not None and not aside and not on_its_own:
            raise Violation(f"partial state on {target.node}", "none", dataset.name)


def _is_orphan(world: World, target: Target, dataset: Dataset) -> bool:
    return all(target.name_of(source.name) != dataset.name for source in world.all_sources())


@contextmanager
def _own_time(world: World) -> Iterator[None]:
    """Branches get their names from the time of the run, and no process of this machine is in their way."""
    with (
        patch.object(sending, "new_stamp", lambda _, *rest: new_stamp(world.clock, *rest)),
        patch.object(history, "holders", lambda folders, devices: ()),
    ):
        yield
