"""What runs about one VM leave in its history, and that every recorded run is logged, however it ends."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from msgspec.structs import replace

from hoster.cli.cireset import _recorded
from hoster.cli.recording import finish_recorded, run_about
from hoster.errors import Busy, HosterError, OperationFailed, Refused, Unreachable, ZfsError
from hoster.host.process import Completed, Runner
from hoster.model.plan import Outcome, Report, VmReport
from hoster.operations.handover import Migration, migrate
from hoster.operations.recording import Recorder, recorded
from hoster.records.event_log import EventLog
from hoster.records.events import Event
from hoster.records.journal import Journal
from hoster.records.runs import Run, RunKind
from hoster.testing import NamedHost
from hoster.zfs.store import ZfsStore
from tests.properties.world import Quiet
from tests.unit.cli.test_cireset_output import DONE
from tests.unit.operations.nodes import WEB, NodeContext, Nodes

RUN = run_about(RunKind.TAKEOVER, "web")


class Place:
    """Node a, where what runs leave behind is in a folder, and events in a list."""

    def __init__(self, folder: Path) -> None:
        self.nodes = Nodes(folder)
        self.events: list[Event] = []
        own = self.nodes.contexts["a"]
        settings = replace(own.settings, state_dir=folder / "state", marker_dir=folder / "markers")
        self.context: NodeContext = replace(
            own, settings=settings, log=EventLog({"list": self.events.append})
        )
        self.warnings: list[str] = []
        self.journal = Journal(settings.state_dir)

    def end_with(self, error: HosterError) -> None:
        with recorded(self.context, RUN, self.warnings.append):
            raise error


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Refused("a newer version is elsewhere", hint="--accept-loss"), "refused"),
        (Busy("somebody starts it"), "busy"),
        (OperationFailed("no such VM"), "failed"),
        (Unreachable("b does not answer"), "failed"),
    ],
)
def test_a_run_about_one_vm_is_in_its_history_however_it_ends(
    place: Place, error: HosterError, outcome: str
) -> None:
    with pytest.raises(type(error)):
        place.end_with(error)
    (web,) = place.journal.vm_runs("web")
    assert (web.kind, web.job, web.outcome, web.reason) == (
        "takeover",
        "takeover_web",
        outcome,
        error.message,
    )
    assert [event.outcome for event in place.events][1] == outcome
    assert place.events[-1].exit_code == error.exit_code


@pytest.mark.parametrize("how", [KeyboardInterrupt(), SystemExit(143), KeyError("x")], ids=repr)
def test_one_that_is_ended_is_there_as_failed(place: Place, how: BaseException) -> None:
    with pytest.raises(type(how)), recorded(place.context, RUN, place.warnings.append):
        raise how
    (web,) = place.journal.vm_runs("web")
    assert (web.outcome, bool(web.reason)) == ("failed", True)


def test_a_move_is_remembered_with_all_that_was_sent(place: Place) -> None:
    place.nodes.write("a")
    with recorded(place.context, run_about(RunKind.MIGRATION, "web", "b"), place.warnings.append) as told:
        request = replace(place.nodes.request("b"), names=("web",))
        report = migrate(place.context, Migration(request, limit_s=0.1), Quiet(), lambda _: None)
        told.report(report, 0)  # type: ignore[arg-type]
    (web,) = place.journal.vm_runs("web")
    assert (web.kind, web.node, web.outcome) == ("migration", "b", "done")
    taken = len(place.nodes.cluster.nodes["b"].dataset(WEB).snapshots)
    assert len(report.vms[0].sent) >= 2 * (taken - 1), "both replications, and each of the two datasets"
    assert web.sent_bytes == report.vms[0].sent_bytes > 0
    assert [run.sent_bytes for run in place.journal.runs()] == [web.sent_bytes]


def test_what_a_person_did_once_is_no_job_that_stands_badly(place: Place) -> None:
    with pytest.raises(OperationFailed):
        place.end_with(OperationFailed("no such VM"))
    assert place.journal.jobs() == ()
    assert not (place.context.settings.marker_dir / "ERROR_takeover_web").exists()


def test_going_home_counts_as_a_replication_of_what_it_brought_up_to_date(place: Place) -> None:
    with recorded(place.context, run_about(RunKind.FAILBACK, "web", "b"), place.warnings.append) as recorder:
        known = VmReport("web", Outcome.DONE, target="tank/vm/web", vm_id="5b")
        unknown = VmReport("db", Outcome.FAILED, "cut")
        recorder.report(Report((known, unknown)), 0)  # type: ignore[arg-type]
    (web,) = place.journal.replicas()
    assert (web.vm, web.node, web.target, web.job) == ("web", "b", "tank/vm/web", "failback_web_to_b")


def test_a_dry_run_is_neither_logged_nor_recorded(place: Place) -> None:
    with recorded(place.context, RUN, place.warnings.append, dry_run=True):
        pass
    assert (place.events, place.journal.runs()) == ([], ())


def test_a_log_that_is_broken_in_any_way_is_warned_of_once_and_stops_nothing(place: Place) -> None:
    def broken(_: Event) -> None:
        raise RuntimeError("odd")

    def full(_: Event) -> None:
        raise OSError(28, "No space left on device")

    for sink, times in ((broken, 2), (full, 1)):
        place.warnings.clear()
        context = replace(place.context, log=EventLog({"log": sink}))
        with recorded(context, RUN, place.warnings.append) as recorder:
            recorder.report(Report((VmReport("web", Outcome.DONE),)), 0)  # type: ignore[arg-type]
        assert len([w for w in place.warnings if "cannot be logged" in w]) == times
    assert [run.exit_code for run in place.journal.runs()] == [0, 0]


def test_a_reader_of_warnings_who_is_gone_stops_nothing(place: Place) -> None:
    def gone(_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    context = replace(place.context, log=EventLog({"standard error": gone}))
    with recorded(context, RUN, gone) as recorder:
        recorder.report(Report((VmReport("web", Outcome.DONE),)), 0)  # type: ignore[arg-type]
    assert [run.exit_code for run in place.journal.runs()] == [0]


def test_a_recorded_command_leaves_with_the_code_of_its_report(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    def act(_: Recorder) -> Report:
        return Report((VmReport("web", Outcome.REFUSED, "it runs"),))

    from click.exceptions import Exit

    with pytest.raises(Exit) as left:
        finish_recorded(place.context, RUN, act, dry_run=False, as_json=True)
    assert left.value.exit_code == 10
    assert '"outcome": "refused"' in capsys.readouterr().out
    assert [run.exit_code for run in place.journal.runs()] == [10]


def test_the_passwords_of_a_new_cloud_init_set_are_neither_logged_nor_remembered(place: Place) -> None:
    with recorded(place.context, Run(RunKind.RESET, "reset_web", vm="web"), place.warnings.append) as told:
        told.report(_recorded(DONE), 0)  # type: ignore[arg-type]
    (web,) = place.journal.vm_runs("web")
    assert web.reason == "a new cloud-init set, instance iid-1; it is called web2 now"
    left = place.journal.path.read_bytes().decode(errors="ignore") + repr(place.events)
    assert "iid-1" in left
    for secret in ("r00t-word", "super-word", "vnc-word"):
        assert secret not in left


def test_a_passphrase_that_opens_nothing_is_in_no_record(place: Place) -> None:
    def refusing(argv: tuple[str, ...], **more: object) -> Completed:
        assert "s3cret" in str(more["stdin"])
        return Completed(argv, 1, "", "Key load error: Incorrect key provided for 'tank/vm/web'.")

    runner = cast("Runner", SimpleNamespace(run=refusing))
    with pytest.raises(ZfsError), recorded(place.context, RUN, place.warnings.append):
        ZfsStore(NamedHost("a", "a"), runner).load_key("tank/vm/web", passphrase="s3cret")
    left = place.journal.path.read_bytes().decode(errors="ignore") + repr(place.events)
    assert "Incorrect key" in left
    assert "s3cret" not in left + repr(place.warnings)
