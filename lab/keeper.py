"""Holds everything of one lab run, and takes it along when it ends.

Runs as a script, as the first process of a process and network namespace of its own. It starts and ends the
nodes' QEMU processes and the ssh connections to them, and runs the commands that set up their network. It
ends when its standard input does, that is with its starter, even when that gets SIGKILL; the kernel then
ends all that ran in the namespace and takes bridges and taps away, and the run directory is removed.

Requests and replies are one JSON object a line: {"do": "run" | "spawn" | "kill" | "status", ...}.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__: list[str] = []


def _main() -> None:
    children: dict[str, subprocess.Popen[bytes]] = {}
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line), children)), flush=True)
    for child in children.values():
        child.kill()
    for child in children.values():
        child.wait()
    shutil.rmtree(sys.argv[1], ignore_errors=True)


def _answer(request: dict[str, Any], children: dict[str, subprocess.Popen[bytes]]) -> dict[str, Any]:
    match request:
        case {"do": "run", "argv": argv, "input": text}:
            done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
            return {"status": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
        case {"do": "spawn", "name": name, "argv": argv, "log": log}:
            _end(children.pop(name, None))
            with Path(log).open("ab") as output:
                children[name] = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
                )
            return {}
        case {"do": "kill", "name": name}:
            _end(children.pop(name, None))
            return {}
        case {"do": "status", "name": name}:
            child = children.get(name)
            return {"running": child is not None and child.poll() is None}
        case _:
            return {"status": 2, "stderr": f"unknown request: {request}"}


def _end(child: subprocess.Popen[bytes] | None) -> None:
    if child is not None:
        child.kill()
        child.wait()


if __name__ == "__main__":
    _main()
