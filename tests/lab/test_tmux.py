"""Replications in tmux sessions: the page's script as it is printed, and the one of the how-to.

Whatever tmux types while a run is at work is left for the shell: hoster reads nothing of it. That a job has
failed is said by hoster's own marker, since the page's script cannot tell.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.lab import Lab
from lab.node import Node
from tests.lab.test_cron import run_cron_at
from tests.lab.typed import block_with, type_block, until
from tests.lab.world import guids, hoster_json, make_vm, prepare, write

pytestmark = pytest.mark.lab

# As printed in the documentation of Hoster, address and paths included.
SCRIPT = """\
#!/usr/local/bin/bash

REPLICATION_NAME=to_hoster01
REPLICATION_ENDPOINT=10.5.199.85
REPLICATION_SPEED_LIMIT=90
REPLICATION_COMMAND="/opt/hoster-core/hoster vm replicate-all --endpoint ${REPLICATION_ENDPOINT} --speed-limit ${REPLICATION_SPEED_LIMIT} --script-name ${REPLICATION_NAME}"

/usr/local/bin/tmux new-session -d -s ${REPLICATION_NAME}
/usr/local/bin/tmux send-keys -t ${REPLICATION_NAME}:0 "${REPLICATION_COMMAND}" Enter
/usr/local/bin/tmux send-keys -t ${REPLICATION_NAME}:0 "if [ $? -lt 1 ]; then /usr/local/bin/tmux kill-session -t ${REPLICATION_NAME}; else touch /var/run/replication/ERROR_${REPLICATION_NAME}; fi" Enter
"""  # noqa: E501 - as it is printed
CRON = """\
# $FreeBSD$
#
SHELL=/bin/sh
PATH=/etc:/bin:/sbin:/usr/bin:/usr/sbin

#== AUTOMATIC REPLICATION ==#
# Sleep is required to run the replication just a few seconds later after the scheduled time,
# in order to avoid conflicts with the other snapshot or replication jobs
# snapshot or replication will fail to execute if there is an active replication job taking place

*/5 * *  * *      root  sleep 3;  /root/replication_to_hoster01.sh

"""
SCRIPT_PATH = "/root/replication_to_hoster01.sh"
MARKER = "/var/run/replication/ERROR_to_hoster01"
ENDED = "! tmux has-session -t to_hoster01 2>/dev/null"


@pytest.fixture
def busy_lab(fresh_lab: Lab) -> Iterator[Lab]:
    """A VM that takes long to be sent as long as the link is slow, a target at the page's address, bash and
    tmux at its paths."""
    prepare(fresh_lab)
    node, target = fresh_lab.node1, fresh_lab.node2
    target.run("ip addr add 10.5.199.85/32 dev lo")
    node.run(
        f"ip route add 10.5.199.85 via {target.address};"
        " sed -n 's/^node2,[^ ]*/10.5.199.85/p' /root/.ssh/known_hosts >/tmp/known;"
        " cat /tmp/known >>/root/.ssh/known_hosts; ln -s /bin/bash /usr/bin/tmux /usr/local/bin/"
    )
    make_vm(node, "web1", kib=6 * 1024)
    fresh_lab.link.slow("node2", rate_mbit=1)
    yield fresh_lab
    node.run("tmux kill-server", check=False)
    node.run("ip route del 10.5.199.85; rm -f /usr/local/bin/bash /usr/local/bin/tmux /root/replication_*.sh")
    target.run("ip addr del 10.5.199.85/32 dev lo")


def await_sending(node: Node, job: str) -> None:
    """Waits until the job has begun to send its VM."""
    until(node, f"hoster jobs -u | grep -q '^{job} .* 0/1 [1-9]'", within_s=60)


def codes(node: Node, job: str) -> list[int]:
    """How the runs of a job have ended, oldest first."""
    return [run["exit_code"] for run in reversed(hoster_json(node, f"history --job {job}"))]


def test_the_pages_script_does_no_harm_also_while_a_run_is_at_work(busy_lab: Lab) -> None:
    node, target = busy_lab.node1, busy_lab.node2
    node.write(SCRIPT_PATH, SCRIPT, mode="755")
    node.write("/etc/cron.d/hoster_replication", CRON)
    run_cron_at(node, "2026-07-07 10:04:57", "tmux has-session -t to_hoster01", within_s=60)
    node.run("rm /etc/cron.d/hoster_replication")
    await_sending(node, "to_hoster01")
    for _ in range(2):
        assert "duplicate session" in node.run(SCRIPT_PATH).stderr
    busy_lab.restore_links()
    until(node, ENDED, within_s=90)
    # What was typed into the busy session was left for its shell, and the first line of it ended that.
    assert codes(node, "to_hoster01") == [0]
    assert guids(target, "tank/vm/web1") == guids(node, "tank/vm/web1")

    write(node, "web1")
    busy_lab.link.cut("node2")
    node.run(SCRIPT_PATH)
    until(node, f"test -e {MARKER}", within_s=60)
    assert "10.5.199.85" in node.get(MARKER).decode()
    until(node, ENDED, within_s=30)
    busy_lab.restore_links()
    node.run(SCRIPT_PATH)
    until(node, f"{ENDED} && test ! -e {MARKER}", within_s=60)
    assert codes(node, "to_hoster01") == [0, 12, 0]
    assert guids(target, "tank/vm/web1") == guids(node, "tank/vm/web1")


def test_the_script_of_the_how_to_keeps_the_output_and_leaves_a_busy_run_in_peace(busy_lab: Lab) -> None:
    node, target = busy_lab.node1, busy_lab.node2
    type_block(node, block_with("watch-a-job.md", "respawn-pane"))
    await_sending(node, "to_node2")
    assert "the run before is still at work" in node.run("/root/replication_to_node2.sh").stdout
    busy_lab.restore_links()
    shown = "tmux capture-pane -p -t to_node2"
    until(node, f"{shown} | grep -q 'Pane is dead (status 0'", within_s=90)
    assert codes(node, "to_node2") == [0]
    assert "web1: sent" in node.run(shown).stdout
    assert guids(target, "tank/vm/web1") == guids(node, "tank/vm/web1")

    busy_lab.link.cut("node2")
    node.run("/root/replication_to_node2.sh")
    until(node, f"{shown} | grep -q 'Pane is dead (status 12'", within_s=60)
    assert node.run("tmux list-sessions -F '#S'").stdout.split() == ["to_node2"]
