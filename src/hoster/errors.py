"""The tree of errors. Each class carries its exit code; each instance may carry a hint.

    HosterError                 1   something went wrong and nothing more precise is known
    ├── UsageError              2   the command line asks for something impossible
    ├── ConfigurationError      2   a configuration file is missing, malformed or contradicts the node
    ├── OperationFailed         3   a command was run and did not do what was asked
    │   └── ZfsError            3   zfs or zpool failed; its own words are kept
    │       ├── DatasetMissing      the dataset, snapshot or pool does not exist
    │       ├── AlreadyThere        the name is taken
    │       ├── DatasetBusy         held, cloned, mounted, being sent or received
    │       ├── NoSpace             the pool or a quota is full
    │       ├── NotPermitted        rights are missing
    │       └── TargetModified      the receiving dataset is not what the stream continues
    ├── Refused                10   hoster could, and must not: the evidence and the remedy are in it
    ├── Busy                   11   somebody else is at work on the same thing
    ├── Unreachable            12   the other node cannot be reached, or will not let us in
    │   └── NoAnswer           12   it does not answer at all: it may well be switched off
    └── Interrupted           130   somebody ended it in the middle, and how things stand is in the message

Refusals of single VMs in a batch are values (:class:`hoster.model.plan.Refusal`), not exceptions;
:class:`Refused` is for a command that has one subject.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process returns; documented in docs/reference.md and in every ``--help``."""

    DONE = 0
    BUG = 1
    USAGE = 2
    FAILED = 3
    REFUSED = 10
    BUSY = 11
    UNREACHABLE = 12
    INTERRUPTED = 130


class HosterError(Exception):
    """What, where and what was observed; ``hint`` is the next command to type, or empty."""

    exit_code = ExitCode.BUG

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(HosterError):
    """The command line asks for something that cannot be."""

    exit_code = ExitCode.USAGE


class ConfigurationError(HosterError):
    """A configuration file is missing or wrong: names the file, the place, what was found and expected."""

    exit_code = ExitCode.USAGE


class OperationFailed(HosterError):
    """A command was run and did not do what was asked of it."""

    exit_code = ExitCode.FAILED


class ZfsError(OperationFailed):
    """``zfs`` or ``zpool`` failed; the message holds the command's own words."""


class DatasetMissing(ZfsError):
    """The dataset, snapshot, bookmark or pool does not exist (or its pool is not imported)."""


class AlreadyThere(ZfsError):
    """A dataset, snapshot or bookmark of that name exists."""


class DatasetBusy(ZfsError):
    """Held, cloned, mounted, or in the middle of a send or a receive."""


class NoSpace(ZfsError):
    """The pool or a quota has no room left."""


class NotPermitted(ZfsError):
    """The user may not do this; hoster needs root or the rights named in the hint."""


class TargetModified(ZfsError):
    """The receiving dataset is not at the version that the stream continues from."""


class Refused(HosterError):
    """hoster could do it and must not: the message is the evidence, the hint is the remedy."""

    exit_code = ExitCode.REFUSED


class Busy(HosterError):
    """Somebody else is at work on the same thing; the message names the holder."""

    exit_code = ExitCode.BUSY


class Unreachable(HosterError):
    """The other node cannot be reached or will not let us in."""

    exit_code = ExitCode.UNREACHABLE


class NoAnswer(Unreachable):
    """The other node does not answer, as one that is switched off."""


class Interrupted(HosterError):
    """Somebody ended it (Ctrl-C) where it matters how things stand now: the message says that."""

    exit_code = ExitCode.INTERRUPTED
