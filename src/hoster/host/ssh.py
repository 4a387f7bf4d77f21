"""One shared ssh connection to one node, through the system's OpenSSH client.

The user's own configuration, keys, agent and known_hosts apply. Whatever could ask a question or change a
decision is pinned: no prompt, no password, strict host keys, no forwarding. The connection is a child of
this process and ends with it, a killed one included: the far side reads from it and leaves at its end.
"""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from msgspec import Struct

from hoster.errors import NoAnswer, OperationFailed, Unreachable
from hoster.host.origin import ORIGIN, own_origin
from hoster.host.process import SystemRunner, end
from hoster.host.reach import MACHINE_SCRIPT, quoted, remote_shell_line
from hoster.model.names import Endpoint

KEEPALIVE_S = 15
"""A silent link is given up after three of these."""

_READY = "hoster-connected:"
_NOISE_LIMIT = 1024 * 1024

_OWN_FAILURE = 255
"""What ssh ends with where it has failed; any other status is that of the command over there (ssh(1))."""

LETS_US_IN = "it lets us in, and runs no command for us"

_FAILURES = (
    # What OpenSSH says (9.2 on Debian 12 and 10.0 on Debian 13; the words are the same since 7.x), what it
    # means, and what to do. First match wins, so causes stand before consequences.
    ("IDENTIFICATION HAS CHANGED", "its host key has changed", "changed-key"),
    ("Host key verification failed", "its host key is not known here", "unknown-key"),
    ("host key is known for", "its host key is not known here", "unknown-key"),
    ("UNPROTECTED PRIVATE KEY", "the key file may be read by others, so ssh ignores it", "key-mode"),
    ("Could not resolve hostname", "its name does not resolve", "resolve"),
    ("Permission denied", "it refused every key offered", "refused"),
    ("Too many authentication failures", "it refused every key offered", "refused"),
    ("Connection refused", "nothing listens on that port", "closed"),
    ("timed out", "it does not answer", "silent"),
    ("No route to host", "there is no route to it", "silent"),
    ("Network is unreachable", "its network cannot be reached", "silent"),
)


class SshOptions(Struct, frozen=True):
    """How to reach an endpoint. ``port`` and ``key`` None leave it to the user's ssh configuration."""

    endpoint: Endpoint
    port: int | None = None
    key: Path | None = None
    connect_timeout_s: int = 10


class SshSession:
    """A node behind one shared connection; use as a context manager. Unreachable where it cannot be had."""

    def __init__(self, options: SshOptions, runner: SystemRunner, run_dir: Path) -> None:
        self._options = options
        self._runner = runner
        self._run_dir = run_dir
        self._folder: Path | None = None
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._machine = ""
        self._origin = own_origin()

    @property
    def name(self) -> str:
        return str(self._options.endpoint)

    @property
    def machine(self) -> str:
        return self._machine

    def __enter__(self) -> SshSession:
        self._folder, self._lock = _private_folder(self._run_dir)
        try:
            self._connect()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def argv(self, command: Sequence[str]) -> tuple[str, ...]:
        """A client of the shared connection that runs ``command`` there.

        ``ProxyCommand=false`` keeps ssh from quietly opening a connection of its own where the shared one
        has gone.
        """
        return (
            *self._base(),
            "-o",
            "ControlMaster=no",
            "-o",
            "ProxyCommand=false",
            "--",
            self.name,
            remote_shell_line(command, {ORIGIN: self._origin}),
        )

    def close(self) -> None:
        """Ends the connection and everything that still runs over it."""
        if self._process is not None:
            end(self._process)
            self._process = None
        if self._folder is not None:
            _remove(self._folder)
            self._folder = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _base(self) -> tuple[str, ...]:
        assert self._folder is not None, "the session is not open"
        pinned = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": str(self._options.connect_timeout_s),
            "ServerAliveInterval": str(KEEPALIVE_S),
            "ServerAliveCountMax": "3",
            "ControlPersist": "no",
            "ControlPath": str(self._folder / "s"),
            "LogLevel": "ERROR",
            "ClearAllForwardings": "yes",
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "PermitLocalCommand": "no",
            "RemoteCommand": "none",
            "RequestTTY": "no",
            "StdinNull": "no",
            "ForkAfterAuthentication": "no",
        }
        words = ["ssh"]
        for option, value in pinned.items():
            words += ["-o", f"{option}={value}"]
        return tuple(words)

    def _way(self) -> tuple[str, ...]:
        """What only the connection itself needs, not its channels."""
        port = () if self._options.port is None else ("-p", str(self._options.port))
        key = () if self._options.key is None else ("-i", str(self._options.key))
        return (*port, *key)

    def _connect(self) -> None:
        assert self._folder is not None
        script = f"echo {_READY}$({MACHINE_SCRIPT}); exec cat >/dev/null"
        argv = (
            *self._base(),
            *self._way(),
            "-o",
            "ControlMaster=yes",
            "--",
            self.name,
            f"exec /bin/sh -c {quoted(script)}",
        )
        log = self._folder / "log"
        with log.open("wb") as said:
            self._process = self._runner.start(argv, stderr=said)
        # Connecting, the handshake and the far side's login each have their share of the time.
        deadline = time.monotonic() + self._options.connect_timeout_s + 20
        answer = _marked_line(self._process, deadline)
        if answer is None:
            is_over = time.monotonic() < deadline
            end(self._process, grace_s=1.0)
            status = self._process.returncode if is_over else _OWN_FAILURE
            raise _explained(self._options, log.read_text(errors="backslashreplace"), status)
        self._machine = answer


def _marked_line(process: subprocess.Popen[bytes], deadline: float) -> str | None:
    """What follows the marker on the far side's output; noise before it (a message of the day) is passed
    over. None if the output ends, or the ``deadline`` passes, without it."""
    assert process.stdout is not None
    heard = b""
    while len(heard) < _NOISE_LIMIT:
        ready, _, _ = select.select([process.stdout], [], [], max(deadline - time.monotonic(), 0))
        chunk = os.read(process.stdout.fileno(), 65536) if ready else b""
        if not chunk:
            return None
        heard += chunk
        for line in heard.decode("utf-8", "replace").splitlines(keepends=True):
            if line.startswith(_READY) and line.endswith("\n"):
                return line.removeprefix(_READY).strip()
    return None


def _explained(options: SshOptions, said: str, status: int) -> Unreachable:
    """The error for what ssh said, and how it ended: what it means, and what to type next."""
    if 0 <= status < _OWN_FAILURE:
        return Unreachable(
            f"{options.endpoint}: {LETS_US_IN} (exit status {status})",
            hint=f"give its account a shell, and the key no command of its own: {_by_hand(options)} true",
        )
    meaning, kind = next(
        ((meaning, kind) for pattern, meaning, kind in _FAILURES if pattern in said),
        ("ssh failed", "other"),
    )
    last = said.strip().splitlines()[-1].removeprefix("ssh: ") if said.strip() else "no answer in time"
    # Behind a tunnel, or while it boots, a node that is not there closes the connection.
    is_off = kind in {"silent", "closed"} or not said.strip()
    error = NoAnswer if is_off else Unreachable
    return error(f"{options.endpoint}: {meaning} (ssh: {last})", hint=_hint(options, kind))


def _hint(options: SshOptions, kind: str) -> str:
    port = f" -p {options.port}" if options.port is not None else ""
    by_hand = _by_hand(options)
    known = (
        options.endpoint.host if options.port in {None, 22} else f"[{options.endpoint.host}]:{options.port}"
    )
    match kind:
        case "unknown-key":
            return f"log in once by hand, compare the fingerprint, and accept it: {by_hand}"
        case "changed-key":
            return (
                "if the node was replaced on purpose, remove the old key and accept the new one:"
                f" ssh-keygen -R {known}; {by_hand}"
            )
        case "refused":
            return f"install this node's key there: ssh-copy-id{port} {options.endpoint}"
        case "resolve":
            return "check the spelling of --endpoint, DNS and /etc/hosts"
        case "closed":
            return "check that sshd runs there, and --port"
        case "silent":
            return f"check that the node is up and the network between: {by_hand}"
        case "key-mode":
            return "give the key to its owner alone: chmod 600 KEY"
        case _:
            return f"try it by hand: {by_hand}"


def _by_hand(options: SshOptions) -> str:
    port = f" -p {options.port}" if options.port is not None else ""
    return f"ssh{port} {options.endpoint}"


def _private_folder(run_dir: Path) -> tuple[Path, int]:
    """A folder of this process's own for the connection's socket, locked while the process lives.

    Folders of processes that are gone (killed, or a crash) are removed first: their lock is free.
    """
    import tempfile

    try:
        run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix="new-ssh-", dir=run_dir))
        lock = _lock_file(made)
        # It gets its name once it is locked: before, another hoster would take it for one that is left over.
        folder = made.rename(run_dir / made.name.removeprefix("new-"))
    except OSError as error:
        raise OperationFailed(
            f"{run_dir}: no folder for the connection can be made there: {error.strerror}",
            hint="run hoster as root",
        ) from error
    assert lock is not None, "nobody else looks for folders of that name"
    for stale in run_dir.glob("ssh-*"):
        freed = _lock_file(stale) if stale != folder else None
        if freed is not None:
            _remove(stale)
            os.close(freed)
    return folder, lock


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _lock_file(folder: Path) -> int | None:
    """An exclusive lock in ``folder``, or None where its owner is alive (or it vanished meanwhile)."""
    try:
        descriptor = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
