"""A command's output is read line by line while it runs: whole lines, every message, nothing without end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from hoster.errors import OperationFailed
from hoster.host.process import SystemRunner
from hoster.host.spoken import LINE_LIMIT, MESSAGES_LIMIT


def read(script: str, timeout_s: float | None = 20.0) -> tuple[list[str], int, str]:
    lines, done = SystemRunner().read(["sh", "-c", script], list, timeout_s=timeout_s)
    assert done.stdout == ""
    return lines, done.returncode, done.stderr


def test_lines_messages_and_status_come_apart() -> None:
    assert read("echo a; echo oops >&2; echo b; exit 3") == (["a", "b"], 3, "oops\n")


@pytest.mark.parametrize(
    ("script", "lines"),
    [
        ("true", []),
        ("printf a", ["a"]),
        (r"printf 'a\n\nb'", ["a", "", "b"]),
        (r"printf 'a\n'; sleep 0.05; printf 'b'; sleep 0.05; printf 'c\nd\n'", ["a", "bc", "d"]),
        (r"printf 'a\342\200\250b\rc\n'", ["a\u2028b\rc"]),
        (r"printf '\303'; sleep 0.05; printf '\251\377\n'", ["é\\xff"]),
    ],
)
def test_a_line_ends_at_a_newline_wherever_the_pieces_part(script: str, lines: list[str]) -> None:
    assert read(script) == (lines, 0, "")


def test_what_is_not_read_is_passed_over_and_the_command_ends_by_itself() -> None:
    first, done = SystemRunner().read(["seq", "100000"], next, timeout_s=20.0)
    assert (first, done.returncode) == ("1", 0)


def test_messages_in_plenty_do_not_keep_the_output_back() -> None:
    lines, code, said = read("seq 100000 >&2; echo out; seq 100000 >&2")
    assert (lines, code, len(said)) == (["out"], 0, 2 * 588895)


def test_silence_is_an_error_and_a_long_listing_is_not() -> None:
    with pytest.raises(OperationFailed, match=r"sh: no answer within 0\.2 seconds"):
        read("echo a; sleep 60", timeout_s=0.2)
    assert read("for i in 1 2 3 4 5 6; do echo $i; sleep 0.1; done", timeout_s=0.5)[0][-1] == "6"


def test_an_output_that_has_ended_is_no_end_of_the_command() -> None:
    with pytest.raises(OperationFailed, match="sh: it does not end"):
        read("exec >&- 2>&-; sleep 60", timeout_s=0.2)


@pytest.mark.parametrize(("script", "limit"), [("", LINE_LIMIT), (">&2", MESSAGES_LIMIT)])
def test_a_line_and_the_messages_have_their_limits(script: str, limit: int) -> None:
    with pytest.raises(OperationFailed, match=f"more than {limit} bytes"):
        read(f"head -c {limit + 1} /dev/zero {script}")


def test_an_error_of_the_reader_ends_the_command() -> None:
    def reader(lines: Iterator[str]) -> None:
        raise OperationFailed(f"seen: {next(lines)}")

    with pytest.raises(OperationFailed, match="seen: 12345"):
        SystemRunner().read(["sh", "-c", "echo 12345; exec sleep 60"], reader)


MEASURED = """
from pathlib import Path
from hoster.host.process import SystemRunner
argv = ["sh", "-c", "yes 123456789012345678901234567890 | head -c 134217728"]
count, _ = SystemRunner().read(argv, lambda lines: sum(1 for _ in lines))
status = Path("/proc/self/status").read_text()  # getrusage(2) would tell the parent's peak, too
print(count, status.partition("VmHWM:")[2].split()[0])
"""


def test_the_text_is_not_held() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    count, peak_kib = map(int, done.stdout.split())
    assert count == 134217728 // 31 + 1
    assert peak_kib < 100 * 1024, "128 MiB went by"
