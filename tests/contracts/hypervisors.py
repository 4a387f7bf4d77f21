"""What every driver of a hypervisor keeps: one suite, inherited by a class for each of them.

Such a class brings a fixture ``ground``: machines that count on their disk (or, in memory, do nothing), and
the accidents that can befall them. pytest is not needed, so that the suite can run where there is none.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Protocol

from hoster.errors import OperationFailed
from hoster.hypervisors.protocol import Guest, Hypervisor


class Ground(Protocol):
    """Where a driver is tried."""

    limit_s: float
    """How long a guest that obeys may take there to power down."""

    def driver(self) -> Hypervisor:
        """The driver, as a run of hoster makes it: each call is another run."""
        ...

    def guest(self, name: str, *, obeys: bool = True, broken: bool = False) -> Guest:
        """A machine that ``obeys`` its power button, or cannot be started at all."""
        ...

    def crash(self, guest: Guest) -> None:
        """Ends its process from outside, and returns when that has ended."""
        ...

    def seen_working(self, guest: Guest) -> bool:
        """Whether the guest does its work: waits for it as long as it may take there."""
        ...


@contextlib.contextmanager
def failing() -> Iterator[list[OperationFailed]]:
    """The block must fail, and how it did is in what this yields."""
    errors: list[OperationFailed] = []
    try:
        yield errors
    except OperationFailed as error:
        errors.append(error)
    assert errors, "it did not fail"


class HypervisorContract:
    """The suite."""

    def test_a_machine_that_was_never_started_does_not_run_and_stopping_it_is_nothing(
        self, ground: Ground
    ) -> None:
        guest = ground.guest("never")
        assert ground.driver().running(guest.ref) is None
        assert ground.driver().stop(guest.ref, force=False, limit_s=1) is False
        assert ground.driver().stop(guest.ref, force=True, limit_s=1) is False

    def test_a_started_machine_works_and_is_found_again_by_another_run(self, ground: Ground) -> None:
        guest = ground.guest("web")
        began = datetime.now(UTC)
        running = ground.driver().start(guest)
        assert ground.driver().running(guest.ref) == running
        assert abs(running.since - began) < timedelta(minutes=2)
        assert ground.seen_working(guest)

    def test_a_machine_that_runs_is_not_started_again(self, ground: Ground) -> None:
        guest = ground.guest("web")
        running = ground.driver().start(guest)
        with failing() as errors:
            ground.driver().start(guest)
        assert "runs already" in errors[0].message
        assert ground.driver().running(guest.ref) == running

    def test_a_guest_that_obeys_powers_down_and_can_be_started_again(self, ground: Ground) -> None:
        guest = ground.guest("web")
        ground.driver().start(guest)
        assert ground.seen_working(guest)
        assert ground.driver().stop(guest.ref, force=False, limit_s=ground.limit_s) is True
        assert ground.driver().running(guest.ref) is None
        assert ground.driver().start(guest) == ground.driver().running(guest.ref)
        assert ground.seen_working(guest)

    def test_one_that_does_not_is_waited_for_and_then_an_error_that_names_the_way_out(
        self, ground: Ground
    ) -> None:
        guest = ground.guest("deaf", obeys=False)
        running = ground.driver().start(guest)
        assert ground.seen_working(guest)
        began = time.monotonic()
        with failing() as errors:
            ground.driver().stop(guest.ref, force=False, limit_s=1)
        assert time.monotonic() - began >= 1
        assert "still runs after 1 second" in errors[0].message
        assert "--force" in errors[0].hint
        assert ground.driver().running(guest.ref) == running
        assert ground.driver().stop(guest.ref, force=True, limit_s=30) is True
        assert ground.driver().running(guest.ref) is None

    def test_a_machine_whose_process_was_killed_does_not_run_and_can_be_started(self, ground: Ground) -> None:
        guest = ground.guest("web")
        ground.driver().start(guest)
        assert ground.seen_working(guest)
        ground.crash(guest)
        assert ground.driver().running(guest.ref) is None
        ground.driver().start(guest)
        assert ground.seen_working(guest)

    def test_one_that_cannot_start_leaves_nothing_behind(self, ground: Ground) -> None:
        guest = ground.guest("broken", broken=True)
        with failing() as errors:
            ground.driver().start(guest)
        assert "nosuch" in errors[0].message
        assert ground.driver().running(guest.ref) is None
        ground.driver().start(ground.guest("broken"))

    def test_stopping_one_leaves_the_other_alone(self, ground: Ground) -> None:
        web, web2 = ground.guest("web"), ground.guest("web2")
        ground.driver().start(web)
        kept = ground.driver().start(web2)
        ground.driver().stop(web.ref, force=True, limit_s=30)
        assert ground.driver().running(web.ref) is None
        assert ground.driver().running(web2.ref) == kept

    def test_many_may_ask_at_once(self, ground: Ground) -> None:
        guest = ground.guest("web")
        running = ground.driver().start(guest)
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda _: ground.driver().running(guest.ref), range(12)))
        assert answers == [running] * 12

    def test_a_plan_changes_nothing(self, ground: Ground) -> None:
        guest = ground.guest("web")
        before = sorted(guest.folder.rglob("*"))
        assert any("web" in word for word in ground.driver().plan(guest).command)
        assert sorted(guest.folder.rglob("*")) == before
        assert not guest.ref.run_dir.exists()
        assert not guest.log.exists()
