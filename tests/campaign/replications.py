"""Replications of one run, with what goes wrong in them, and how they are brought to an end."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from hoster.errors import HosterError
from hoster.model.names import SnapshotType
from hoster.model.plan import Ground, Outcome, Report, VmReport
from hoster.operations.replicate import replicate
from hoster.planning.refusals import SET_ASIDE
from tests.campaign.grounds import is_justified
from tests.campaign.judge import Act, Judge, versions_of
from tests.campaign.steps import Steps
from tests.campaign.world import SOURCE_KEEP, Quiet, Target, Violation, World
from tests.zfsmodel.cluster import HERE, Accident, Fault, Killed
from tests.zfsmodel.command import command
from tests.zfsmodel.state import split
from tests.zfsmodel.streams import Cut

MOST_RUNS = 3
"""Runs that it may take until a target has everything, once nothing goes wrong any more."""

_MOST_REMEDIES = 40
_OF_STREAMS = frozenset({Accident.STREAM_CUT, Accident.SENDER_KILLED, Accident.STREAM_KILLED, Accident.LIE})


@dataclass
class Tally:
    """What was counted: what happened, what was refused, how many runs it took in the end."""

    steps: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    runs: Counter[int] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        self.steps += other.steps
        for mine, theirs in (
            (self.faults, other.faults),
            (self.refusals, other.refusals),
            (self.events, other.events),
        ):
            mine.update(theirs)
        self.runs.update(other.runs)


@dataclass
class Replications:
    """Runs ``hoster vm replicate-all``, and judges what it says."""

    world: World
    judge: Judge
    steps: Steps
    tally: Tally
    fault: Fault | None = None
    """What was last made to go wrong."""

    def __post_init__(self) -> None:
        self.world.cluster.on_stream = self._look_at_stream
        self.world.cluster.on_command = self._look_at_command
        self._sending: Target | None = None

    def run(self, target: Target, fault: Fault | None = None) -> Report | None:
        """One run; None where it was killed or failed as a whole."""
        cluster = self.world.cluster
        act = Act({SnapshotType.REPLICATION: SOURCE_KEEP}, target)
        request = target.request(allow_plain_child=target in self.world.readable)
        self.world.trace.append(f"    hoster vm replicate-all --endpoint {target.node}  {_words(fault)}")
        nested = bool(self.judge.acts)
        if not nested:
            cluster.begin(fault)
            cluster.dead = False
            cluster.meanwhile = self._meanwhile
            self.fault = fault or self.fault
        outer, self._sending = self._sending, target
        report: Report | None = None
        try:
            with self.judge.watching(act):
                report = replicate(self.world.context, request, Quiet())
        except Killed:
            self._note("killed")
            if nested:
                raise
        except HosterError as error:
            if fault is None and not act.raced:
                raise Violation(f"a run to {target.node}", "an end", error.message) from error
            self._note(error.message)
        finally:
            self._sending = outer
        if not nested:
            self._end(fault)
        self.world.tick()
        if report is not None:
            self._hear(report, target, act)
        self.judge.look(by_hand=act.raced)
        return report

    def converge(self, target: Target) -> None:
        """Ordinary runs until the target has everything; what is refused is mended as the hint says."""
        runs = remedies = 0
        while True:
            report = self.run(target)
            assert report is not None
            refused = self.mend(report, target)
            remedies += len(refused)
            if remedies > _MOST_REMEDIES:
                raise Violation(f"{target.node}", "the remedies help", refused[0].reason)
            if refused:
                continue
            runs += 1
            if not report.with_outcome(Outcome.FAILED):
                break
            if runs == MOST_RUNS:
                failed = report.with_outcome(Outcome.FAILED)[0]
                raise Violation(f"{target.node} has everything", f"after {runs} runs", failed.reason)
        self.tally.runs[runs] += 1

    def mend(self, report: Report, target: Target) -> tuple[VmReport, ...]:
        """Types what each refusal of a report says; those that were refused."""
        refused = report.with_outcome(Outcome.REFUSED)
        for vm in refused:
            self._mend(vm, target)
        self.tally.events["remedies typed"] += len(refused)
        return refused

    def _hear(self, report: Report, target: Target, act: Act) -> None:
        for vm in report.vms:
            words = f"{vm.vm}: {vm.outcome.value} {vm.ground or ''} {vm.reason} {'; '.join(vm.notes)}"
            self._note(words)
            self.tally.events["versions sent"] += len(vm.sent)
            self.tally.events["branches"] += sum(" kept in " in note for note in vm.notes)
            if vm.outcome is Outcome.REFUSED and vm.ground is not None:
                self._judge_refusal(vm, vm.ground, target, raced=act.raced)
        self.judge.hear(report, act)

    def _judge_refusal(self, vm: VmReport, ground: Ground, target: Target, *, raced: bool) -> None:
        self.tally.refusals[ground.value] += 1
        if not raced and not is_justified(self.world, target, vm.vm, ground):
            raise Violation(f"{vm.vm} is refused: {ground.value}", "a ground that is seen there", vm.reason)

    def _mend(self, vm: VmReport, target: Target) -> None:
        """Types what the refusal says; where a name for setting aside is taken, another one."""
        node, words = self.world.source, shlex.split(vm.remedy.partition("    ")[0])
        if words[:1] == ["ssh"]:
            words, node = words[2:], self.world.node_of(target)
        if (
            vm.ground is Ground.MODE_MISMATCH
        ):  # whichever way to go on is named: the reference has this one, too
            replica = vm.reason.partition(" on ")[0]
            words, node = ["zfs", "rename", replica, f"{replica}{SET_ASIDE}"], self.world.node_of(target)
        if vm.ground is Ground.WOULD_LIE_READABLE:
            if "--allow-plain-child" in words:
                self.world.readable.add(target)
            self._note(" ".join(words))
            return
        with self.judge.by_hand():
            if vm.ground is Ground.KEY_CHANGED:
                self.judge.agree(target, words[-1])
            if words[1] == "rename" and words[-1].endswith(SET_ASIDE):
                words[-1] += f"{self.world.next_serial()}"
            code, _, said = command(node, words)
        self._note(f"on {node.name}: {' '.join(words)}")
        if code:
            raise Violation(f"the remedy of {vm.ground}: {' '.join(words)}", "done", said.strip())
        self.judge.look(by_hand=True)

    def _meanwhile(self) -> None:
        self._note("meanwhile:")
        self.world.tick()
        sending = self._sending
        others = [target for target in self.world.targets if target != sending]
        if others and self.world.random.random() < 0.3:
            self.run(others[0])
        else:
            self.steps.some()
        for act in self.judge.acts:
            if act is not None:
                act.raced = True
        self.world.tick()

    def _end(self, fault: Fault | None) -> None:
        cluster = self.world.cluster
        lost = fault is not None and fault.accident is Accident.LINK_LOST and cluster.count > fault.at
        if fault is not None and (cluster.fault is None or lost):
            self.tally.faults[fault.accident.value] += 1
        for name in list(cluster.off):
            cluster.start(name)
        cluster.dead = False
        cluster.begin()

    def _look_at_stream(self, sending: Sequence[str], receiving: Sequence[str]) -> None:
        """Both ends of what is sent are held; nothing is ever forced."""
        if "-F" in receiving:
            raise Violation("a receive", "never forced", " ".join(receiving))
        if "-t" in sending:
            self.tally.events["resumed streams"] += 1
            return
        if any(act is None or act.raced for act in self.judge.acts):
            return
        names = [word for word in sending if "@" in word]
        if self._sending is not None:
            self._look_at_mode(self._sending, sending, split(names[-1])[0], receiving[-1])
            if not {"-i", "-I"} & set(sending):
                self._look_at_full_stream(self._sending, split(names[0])[0], receiving[-1])
        for name in names:
            _, snapshot = self.world.source.snapshot_named(name)
            if not any(tag.startswith("hoster-") for tag in snapshot.holds):
                raise Violation(f"{name}, which is being sent", "held", "no hold of hoster's")

    def _look_at_mode(self, target: Target, sending: Sequence[str], name: str, replica: str) -> None:
        """What is encrypted here lies encrypted there, in streams of one kind; what is not, where it may."""
        source, node = self.world.source.datasets[name], self.world.node_of(target)
        raw = "-w" in sending
        if raw is not (source.encrypted and not target.no_raw):
            raise Violation(f"the stream of {name}", "raw if it is encrypted", " ".join(sending))
        lies_in = node.datasets.get(replica) or node.datasets[target.home]
        vm_sealed = source.encrypted or self.world.datasets_of(name.split("/")[2])[0].encrypted
        readable = not raw and not lies_in.encrypted and vm_sealed
        if readable and (source.encrypted or target not in self.world.readable):
            raise Violation(f"{name} on {target.node}", "nothing readable unasked", " ".join(sending))

    def _look_at_full_stream(self, target: Target, name: str, replica: str) -> None:
        """Nothing is sent again that is there under another name, unless it was set aside by hand."""
        source, node = self.world.source.datasets[name], self.world.node_of(target)
        root = "/".join(replica.split("/")[: target.home.count("/") + 2])
        expected = {target.name_of(one.name) for one in self.world.all_sources()}
        for orphan in node.below(root):
            known = versions_of(source) & {one.guid for one in orphan.snapshots}
            if known and orphan.name not in expected and ".set-aside" not in orphan.name:
                raise Violation(f"{name} is on {target.node} as {orphan.name}", "refused", "sent in full")

    def _look_at_command(self, argv: Sequence[str]) -> None:
        """What has arrived of a stream is given up only where it cannot go on."""
        if tuple(argv[-4:-1]) != ("zfs", "receive", "-A") or self._sending is None:
            return
        target = self._sending
        for source in self.world.all_sources():
            replica = self.world.replica(target, source)
            if target.name_of(source.name) != argv[-1] or replica is None or replica.partial is None:
                continue
            newest = replica.newest
            follows = replica.partial.from_guid == (0 if newest is None else newest.guid)
            if source.by_guid(replica.partial.to_guid) is None or not follows:
                return
            common = self.judge.common(target, source)
            if newest is None or (common and common[-1] is newest and not self._parts(target, source.name)):
                raise Violation(f"what has arrived of {argv[-1]}", "it goes on", "it was given up")

    def _parts(self, target: Target, name: str) -> bool:
        """Whether another dataset of the same VM has newer versions on the target, which are set aside."""
        vm = name.split("/")[2]
        for source in self.world.datasets_of(vm):
            replica, common = self.world.replica(target, source), self.judge.common(target, source)
            if replica is not None and common and replica.since(common[-1]):
                return True
        return False

    def _note(self, words: str) -> None:
        self.world.trace.append(f"      {words}")


def _words(fault: Fault | None) -> str:
    if fault is None:
        return ""
    return f"[{words_of(fault)}]"


def words_of(fault: Fault) -> str:
    """A fault as it stands in a failure's line."""
    where = f"@{fault.at}"
    if fault.accident in _OF_STREAMS:
        where += f":{fault.cut.versions}+{fault.cut.fraction}"
    return f"{fault.accident.value}{where}{f' of {fault.node}' if fault.node else ''}"


def some_fault(world: World, target: Target) -> Fault:
    """Something that is to go wrong, and where."""
    random = world.random
    accident = random.choice(tuple(Accident))
    cut = Cut(random.randint(0, 2), random.choice((0.0, 0.3, 0.7)))
    node = random.choice((HERE, target.node)) if accident is Accident.POWER_CUT else ""
    last = 4 if accident in _OF_STREAMS else 20
    return Fault(accident, random.randint(0, last), cut, node)
