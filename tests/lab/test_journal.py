"""Whatever the journal's disk is like: backups run, exit codes are true, and it is said once."""

from __future__ import annotations

import pytest

from lab.lab import Lab
from tests.lab.world import DATASET, guids, hoster, hoster_json, make_vm, prepare, write

pytestmark = pytest.mark.lab

WEB = f"{DATASET}/web"
FOLDER = "/var/lib/hoster"
TO_NODE2 = "vm replicate-all --endpoint node2"


def test_a_journal_that_is_full_read_only_or_damaged_stops_no_backup(fresh_lab: Lab) -> None:
    one, two = fresh_lab.node1, fresh_lab.node2
    prepare(fresh_lab)
    make_vm(one, "web", kib=64)

    def warned(words: str, code: int, warning: str) -> None:
        """The run ends as it would, and says one thing of the journal."""
        write(one, "web")
        said = [line for line in hoster(one, words, code=code).stderr.splitlines() if FOLDER in line]
        assert len(said) == bool(warning), said
        assert warning in "".join(said)

    def all_as_ever(warning: str) -> None:
        warned(TO_NODE2, 0, warning)
        assert guids(two, WEB)[-1] == guids(one, WEB)[-1]
        warned("snapshot all --stype hourly --keep 3", 0, warning)
        warned("vm replicate-all --endpoint 10.77.0.99 --script-name nowhere", 12, warning)
        assert "exit code 12" in one.run("cat /var/run/replication/ERROR_nowhere").stdout
        one.run("rm /var/run/replication/ERROR_nowhere")

    cannot = "the journal of runs cannot be written: "
    one.run(f"mkdir -p {FOLDER} && mount -t tmpfs -o size=256k tmpfs {FOLDER}")
    try:
        warned(TO_NODE2, 0, "")
        one.run(f"dd if=/dev/zero of={FOLDER}/filler bs=4096 status=none", check=False)
        all_as_ever(f"{cannot}database or disk is full")
        one.run(f"rm {FOLDER}/filler && mount -o remount,ro {FOLDER}")
        all_as_ever(cannot)
        assert [run["exit_code"] for run in hoster_json(one, "history")] == [0], "what it has can be read"
        assert hoster_json(one, "status")["vms"][0]["targets"][0]["newest"]
        one.run(f"mount -o remount,rw {FOLDER}")

        one.run(f"head -c 20000 /dev/urandom >{FOLDER}/journal.sqlite3")
        status = hoster_json(one, "status")
        assert "the journal of runs cannot be read" in status["problems"][0]
        assert status["vms"][0]["targets"][0]["newest"], "the target itself was asked"
        hoster(one, "history", code=3)
        warned(TO_NODE2, 0, "the journal was damaged (file is not a database); it is journal.damaged now")
        all_as_ever("")
        assert len(hoster_json(one, "history")) == 4
    finally:
        one.run(f"umount {FOLDER}")
