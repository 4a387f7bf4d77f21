"""What can be wrong with the way to the other node: each has its own message, its hint, and exit code 12."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from lab.lab import Lab
from tests.lab.world import hoster, make_vm, prepare

pytestmark = pytest.mark.lab


@dataclass(frozen=True)
class Case:
    """What is broken on node1 or node2, how it is mended, and what hoster must say."""

    broken: str
    endpoint: str
    message: str
    hint: str
    mended: str = "true"
    on: str = "node1"


CASES = {
    "unknown host key": Case(
        "mv /root/.ssh/known_hosts /root/known_hosts.kept",
        "node2",
        "host key is not known",
        "compare the fingerprint",
        "mv /root/known_hosts.kept /root/.ssh/known_hosts",
    ),
    "changed host key": Case(
        "cp /root/.ssh/known_hosts /root/known_hosts.kept; rm -f /tmp/k;"
        " ssh-keygen -q -t ed25519 -N '' -f /tmp/k;"
        " (echo -n 'node2,10.77.0.12 '; cut -d' ' -f1,2 /tmp/k.pub) >/root/.ssh/known_hosts",
        "node2",
        "host key",
        "ssh",
        "mv /root/known_hosts.kept /root/.ssh/known_hosts",
    ),
    "refused key": Case(
        "mv /root/.ssh/authorized_keys /root/authorized_keys.kept; : >/root/.ssh/authorized_keys",
        "node2",
        "refused every key",
        "ssh-copy-id",
        "mv /root/authorized_keys.kept /root/.ssh/authorized_keys",
        on="node2",
    ),
    "a name that does not resolve": Case("true", "nosuch.invalid", "does not resolve", "spelling"),
    "a closed port": Case("true", "node2 --port 2222", "nothing listens", "--port"),
    "a key file that others may read": Case(
        "cp /root/.ssh/id_rsa /root/open-key; chmod 644 /root/open-key;"
        " mv /root/.ssh/id_rsa /root/id_rsa.kept;"
        " mv /root/.ssh/id_ed25519 /root/id_ed25519.kept; true",
        "node2 --key /root/open-key",
        "ssh ignores it",
        "chmod 600",
        "mv /root/id_rsa.kept /root/.ssh/id_rsa; mv /root/id_ed25519.kept /root/.ssh/id_ed25519; true",
    ),
}


@pytest.fixture(scope="module")
def ready(lab: Lab) -> Lab:
    lab.reset()
    prepare(lab)
    make_vm(lab.node1, "web")
    return lab


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_it_is_told_apart_ends_soon_and_changes_nothing(ready: Lab, case: Case) -> None:
    broken = ready[case.on]
    broken.run(case.broken)
    try:
        started = time.monotonic()
        done = hoster(ready.node1, f"vm replicate-all --endpoint {case.endpoint} </dev/null", code=12)
        assert time.monotonic() - started < 30
    finally:
        broken.run(case.mended)
    assert case.message in done.stderr
    assert case.hint in done.stderr
    assert "Traceback" not in done.stderr
    assert ready.node2.run("zfs list tank/vm/web", check=False).returncode != 0


def test_a_node_that_swallows_every_packet_is_given_up_in_time(ready: Lab) -> None:
    ready.link.half_open("node2")
    try:
        started = time.monotonic()
        done = hoster(ready.node1, "vm replicate-all --endpoint node2", code=12)
        assert time.monotonic() - started < 45
    finally:
        ready.restore_links()
    assert "does not answer" in done.stderr or "no route" in done.stderr
