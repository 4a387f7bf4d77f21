"""The model of OpenZFS against the real one: the same random traces in both, step by step."""

from __future__ import annotations

import re

import pytest

from lab import Lab, Node
from tests.zfsmodel.command import command
from tests.zfsmodel.node import ModelNode
from tests.zfsmodel.traces import POOLS, Step, perform, trace

pytestmark = pytest.mark.lab

STEPS = 30
_NATIVES = ("type", "guid", "createtxg", "origin", "userrefs", "clones", "receive_resume_token")
_KEYS = ("encryption", "encryptionroot", "keystatus")
_LOOK = (
    *("zfs", "get", "-Hp", "-r", "-t", "filesystem,volume,snapshot,bookmark"),
    *("-o", "name,property,value,source"),
    ",".join(
        (*_NATIVES, *_KEYS, "mounted", "readonly", "hoster:id", "hoster:role", "hoster:parent", "hoster:note")
    ),
    *POOLS,
)
_PRELUDE = """
cd /
printf '%032d' 1 >/tmp/key
write() {
    [ "$(zfs get -H -o value mounted "$1")" = yes ] && [ "$(zfs get -H -o value readonly "$1")" = off ] &&
        head -c "$2" /dev/urandom >"$(zfs get -H -o value mountpoint "$1")/f" && zpool sync
}
"""
_STEP = """
{{ {command} ; }} >/tmp/out 2>/tmp/err </dev/null; echo "== $?"; cat /tmp/err
"""


@pytest.fixture
def node(lab: Lab) -> Node:
    """node1 with two empty pools, one to send from and one to receive in."""
    lab.reset(backup=1)
    return lab.node1


@pytest.fixture
def model(lab: Lab) -> ModelNode:
    """The same in the model, of the release that node1 runs."""
    major, minor = lab.release_of(lab.node1.number).zfs.split(".")
    return ModelNode("model", POOLS, openzfs=(int(major), int(minor)))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_random_trace_does_the_same_in_the_model_as_on_real_zfs(
    node: Node, model: ModelNode, seed: int
) -> None:
    _compare(node, model, trace(seed, STEPS))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_so_does_one_of_encrypted_datasets_whose_keys_come_and_go(
    node: Node, model: ModelNode, seed: int
) -> None:
    _compare(node, model, trace(seed, STEPS, sealed=True))


def _compare(node: Node, model: ModelNode, steps: list[Step]) -> None:
    script = _PRELUDE + "".join(_STEP.format(command=step.shell()) for step in steps)
    script += f"echo '== listing'; {' '.join(_LOOK)}\n"
    *outcomes, listing = re.split(r"^== ", node.run("bash -s", input=script).stdout, flags=re.M)[1:]
    for number, (step, outcome) in enumerate(zip(steps, outcomes, strict=True)):
        status, _, said = perform(model, step)
        real_status, _, real_said = outcome.partition("\n")
        happened = (
            f"step {number}: {step.shell()}\nreal: {outcome}\nmodel: {status}\n{said}\n{_done(steps, number)}"
        )
        assert (status == 0) == (real_status == "0"), happened
        if step.words[0] != "write":
            assert _words(said) == _words(real_said), happened
    status, ours, _ = command(model, _LOOK)
    assert status == 0
    assert _comparable(ours) == _comparable(listing.partition("\n")[2])


def _done(steps: list[Step], number: int) -> str:
    return "\n".join(["before it:", *(step.shell() for step in steps[:number])])


def _words(said: str) -> list[str]:
    """What is complained of, without usage texts, tokens, and the lists of what -r or -R would destroy."""
    text = re.sub(r"1-[0-9a-f]+-[0-9a-f]+-[0-9a-f]+", "TOKEN", said)
    text = re.sub(r"^usage:.*?\[<topic>\]$", "", text, flags=re.MULTILINE | re.DOTALL)
    return sorted(line.strip() for line in re.split("use '-[rR]'", text)[0].splitlines() if line.strip())


def _comparable(listing: str) -> dict[str, dict[str, str]]:
    """Names with their properties; GUIDs as the first name that bears them, createtxg as an order."""
    rows: dict[str, dict[str, str]] = {}
    for line in listing.splitlines():
        name, key, value, source = line.split("\t")
        local = source if ":" in key or key == "readonly" else ""
        rows.setdefault(name, {})[key] = f"{value} {local}".rstrip()
    rows = {name: row for name, row in sorted(rows.items()) if name not in POOLS}
    first: dict[str, str] = {}
    for name, row in rows.items():
        row["guid"] = first.setdefault(row["guid"], name)
        row["receive_resume_token"] = "none" if row["receive_resume_token"] == "-" else "some"
        row["clones"] = ",".join(sorted(row["clones"].split(",")))
    for pool in POOLS:
        ours = {name: row for name, row in rows.items() if name.startswith(f"{pool}/")}
        order = sorted({int(row["createtxg"]) for row in ours.values()})
        for row in ours.values():
            row["createtxg"] = str(order.index(int(row["createtxg"])))
    return rows
