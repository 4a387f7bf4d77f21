"""What `hoster vm cireset` shows: each password once, and none in a dry run."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from hoster.cli.cireset import _show
from hoster.cloudinit.passwords import Secrets
from hoster.operations.cireset import ResetReport

DONE = ResetReport(
    vm="web2",
    dataset="tank/vm/web2",
    was_called="web",
    vnc_port=5901,
    network="internal",
    ip_address="10.0.0.7/24",
    mac="58:9c:fc:00:00:01",
    dns_server="10.0.0.1",
    search_domain="example.lan",
    ssh_keys=2,
    instance_id="iid-1",
    secrets=Secrets("r00t-word", "super-word", "vnc-word"),
    notes=("something to know",),
)


def test_the_passwords_are_shown_once_each_with_what_else_is_new(capsys: pytest.CaptureFixture[str]) -> None:
    _show(DONE)

    said = capsys.readouterr().out
    for text in ("r00t-word", "super-word", "vnc-word", "10.0.0.7/24", "something to know", "tank/vm/web2"):
        assert said.count(text) == 1


def test_a_dry_run_of_a_vm_without_a_card_shows_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = replace(
        DONE, vm="web", secrets=None, network=None, ip_address=None, mac=None, dns_server=None, dry_run=True
    )

    _show(nothing)

    said = capsys.readouterr().out
    assert "5901" in said
    assert "would get" in said
    assert not any(word in said for word in ("word:", "None", "Network", "its name"))
