"""VMs of which only some datasets are encrypted, sent on a model of ZFS: what lies readable on the target."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from hoster.config.settings import Settings
from hoster.host.locks import Locks
from hoster.host.reach import LocalHost
from hoster.host.ssh import SshOptions
from hoster.model.names import Endpoint
from hoster.model.plan import Ground, Outcome, VmReport
from hoster.operations.context import Context
from hoster.operations.replicate import replicate
from hoster.operations.request import ReplicationRequest
from hoster.planning.refusals import Terms
from hoster.zfs.store import ZfsStore
from tests.campaign.world import Quiet
from tests.zfsmodel.cluster import ModelCluster
from tests.zfsmodel.node import ModelNode

WEB, HOME = "tank/vm/web", "backup/vm"
MARKS = {"hoster:id": "5b", "hoster:role": "primary", "hoster:epoch": "1@node1", "hoster:production": "yes"}
SEALED, OPEN = {"encryption": "on"}, {"encryption": "off"}


class OnePlace(Context, frozen=True):
    """A context whose target is another pool of this node."""

    @contextmanager
    def reach(self, options: SshOptions) -> Iterator[Callable[[], ZfsStore]]:
        yield lambda: self.zfs


@pytest.fixture
def node() -> ModelNode:
    node = ModelNode("local", ("tank", "backup"))
    node.create("tank/vm", {})
    return node


def make(node: ModelNode, home: Mapping[str, str], **datasets: Mapping[str, str]) -> None:
    """The VM with these datasets (``data_deep`` is data/deep), and where its replica goes."""
    node.create(HOME, home)
    for name, encryption in datasets.items():
        path = f"{WEB}/{name.replace('_', '/')}".removesuffix("/own")
        node.create(path, {**encryption, **(MARKS if path == WEB else {})})
        node.write(path, 1000)


def sent(node: ModelNode, tmp_path: Path, terms: Terms) -> VmReport:
    cluster = ModelCluster({"local": node})
    zfs = ZfsStore(LocalHost(), cluster)
    settings = Settings(tmp_path, ("tank/vm",))
    context = OnePlace(settings, "node1", cluster, zfs, Locks(tmp_path), now=lambda: datetime(2024, 1, 1))
    request = ReplicationRequest(SshOptions(Endpoint("local")), target_dataset=HOME, terms=terms)
    return replicate(context, request, Quiet()).vms[0]


@pytest.mark.parametrize("home", [{}, SEALED])
def test_below_a_raw_replica_plain_data_lie_readable_only_if_they_may(
    node: ModelNode, tmp_path: Path, home: Mapping[str, str]
) -> None:
    make(node, home, own=SEALED, data=OPEN)
    refused = sent(node, tmp_path, Terms())
    assert refused.ground is Ground.WOULD_LIE_READABLE
    assert f"{WEB}/data is not encrypted though {WEB} is" in refused.reason
    assert sent(node, tmp_path, Terms(allow_plain_child=True)).outcome is Outcome.DONE
    assert not node.datasets[f"{HOME}/web/data"].encrypted


def test_a_plain_dataset_below_an_encrypted_one_of_a_plain_vm_is_no_different(
    node: ModelNode, tmp_path: Path
) -> None:
    make(node, {}, own=OPEN, data=SEALED, data_deep=OPEN, other=OPEN)
    assert f"{WEB}/data/deep is not encrypted though {WEB}/data is" in sent(node, tmp_path, Terms()).reason
    done = sent(node, tmp_path, Terms(allow_plain_child=True))
    assert (done.outcome, done.reason) == (Outcome.DONE, "")
    assert not node.datasets[f"{HOME}/web/data/deep"].encrypted


def test_what_the_target_can_encrypt_it_does(node: ModelNode, tmp_path: Path) -> None:
    make(node, SEALED, own=OPEN, data=SEALED, other=OPEN, other_deep=OPEN)
    assert sent(node, tmp_path, Terms()).outcome is Outcome.DONE
    assert all(one.encrypted for one in node.below(f"{HOME}/web"))


def test_decrypted_everything_is_encrypted_by_the_target(node: ModelNode, tmp_path: Path) -> None:
    make(node, SEALED, own=SEALED, data=OPEN)
    assert sent(node, tmp_path, Terms(no_raw=True)).outcome is Outcome.DONE
    assert node.datasets[f"{HOME}/web/data"].key_root is node.datasets[HOME]
