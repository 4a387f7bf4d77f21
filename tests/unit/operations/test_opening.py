"""The keys of an encrypted VM: where they come from, and how they are loaded again after it has gone back."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from hoster.config.settings import Settings
from hoster.errors import Refused
from hoster.host.locks import Locks
from hoster.host.reach import LocalHost
from hoster.hypervisors.memory import InMemory
from hoster.model.storage import Role
from hoster.model.vms import Vm
from hoster.operations.context import Context
from hoster.operations.opening import Reopening, load_keys, nobody
from hoster.testing import Says, ScriptedRunner, dataset
from hoster.zfs.store import ZfsStore

WEB = "tank/vm/web"
VM = Vm("web", replace(dataset(WEB, ""), encrypted=True), (), Role.PRIMARY, "node1", production=True)


class Node:
    """A node with one encrypted dataset that is its own encryption root."""

    def __init__(self, folder: Path, location: str = "prompt", *, loaded: bool = False) -> None:
        self.runner = ScriptedRunner()
        self.loaded = loaded
        self.location = location
        settings = Settings(folder / "hoster.toml", ("tank/vm",), key_location=f"{folder}/{{vm}}.key")
        zfs = ZfsStore(LocalHost(), self.runner)
        self.context = Context(settings, "node1", self.runner, zfs, Locks(folder), driver=InMemory())
        self.runner.answer(("zfs", "get"), lambda *_: Says(self.state()))
        self.runner.answer(("zfs", "load-key"), self.load)

    def state(self) -> str:
        values = {
            "encryptionroot": WEB,
            "keylocation": self.location,
            "keyformat": "passphrase",
            "keystatus": "available" if self.loaded else "unavailable",
        }
        return "".join(f"{WEB}\t{key}\t{value}\n" for key, value in values.items())

    def load(self, command: tuple[str, ...], stdin: str) -> Says:
        right = "-L" in command or stdin == "secret\n" or self.location != "prompt"
        if right and "-n" not in command:
            self.loaded = True
        return Says() if right else Says("", "Key load error: Incorrect key provided", 255)


def test_the_configured_place_goes_first_and_nobody_is_asked(tmp_path: Path) -> None:
    node = Node(tmp_path)
    (tmp_path / "web.key").write_text("secret")
    assert load_keys(node.context, "web", [WEB], nobody) == (WEB,)
    assert node.runner.commands[-1] == ("zfs", "load-key", "-L", f"file://{tmp_path}/web.key", WEB)
    assert load_keys(node.context, "web", [WEB], nobody) == ()


def test_without_anybody_to_ask_it_is_refused_and_nothing_hangs(tmp_path: Path) -> None:
    node = Node(tmp_path)
    with pytest.raises(Refused, match="nobody is here to be asked"):
        load_keys(node.context, "web", [WEB], nobody)
    with pytest.raises(Refused, match="could not be opened"):
        load_keys(node.context, "web", [WEB], lambda _: "wrong")
    assert load_keys(node.context, "web", [WEB], lambda _: "secret") == (WEB,)


def test_a_key_of_its_own_place_needs_nobody(tmp_path: Path) -> None:
    node = Node(tmp_path, "file:///root/key")
    assert load_keys(node.context, "web", [WEB], nobody) == (WEB,)


def test_what_opens_it_again_is_known_before_anything_is_done(tmp_path: Path) -> None:
    node = Node(tmp_path, loaded=True)
    with pytest.raises(Refused, match="has to be opened again once it has gone back, and nobody is here"):
        Reopening(node.context, "web", nobody).prepare(VM)
    with pytest.raises(Refused, match="Incorrect key"):
        Reopening(node.context, "web", lambda _: "wrong").prepare(VM)
    asked: list[str] = []

    def ask(name: str) -> str:
        asked.append(name)
        return "secret"

    keys = Reopening(node.context, "web", ask)
    keys.prepare(VM)
    keys.prepare(VM)
    assert asked == [WEB], "asked once"
    node.loaded = False
    keys([WEB])
    assert node.loaded


def test_after_a_crash_what_nobody_knows_stays_closed_and_is_not_waited_for(tmp_path: Path) -> None:
    node = Node(tmp_path)
    assert Reopening(node.context, "web", nobody)([WEB]) == (WEB,)
    assert not node.loaded
    node.location = "file:///root/key"
    assert Reopening(node.context, "web", nobody)([WEB]) == ()
    assert node.loaded
