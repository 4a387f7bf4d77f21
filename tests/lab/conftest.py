"""The lab for tests: two nodes for the whole run, brought back to their beginning before each test.

What the nodes run is chosen by --lab-releases. A failing test's report shows the pools of all nodes. With
--lab-keep the run stops at the first failure and holds the nodes up to be looked at.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from lab import Lab, LabError, Node
from lab.release import DEFAULT, releases_named

_ROOT = Path(__file__).parents[2]
_PACKAGE = _ROOT / "src/hoster"
_LOOKS = (
    "zpool status",
    "zfs list -t all -o name,guid,createtxg,used,refer,userrefs,receive_resume_token,origin,readonly",
)
_LAB = pytest.StashKey[Lab]()
_OPENZFS = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--lab-keep",
        action="store_true",
        help="stop at the first failing lab test and hold its nodes up to be looked at",
    )
    parser.addoption(
        "--lab-releases",
        default=DEFAULT.name,
        metavar="NAME[,NAME...]",
        help="what the lab's nodes run, node1 first, the last for all that follow (python -m lab up --help)",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.lab)


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Two nodes with this tree's hoster on them; their pools are as the last test left them."""
    # The option is not known where no file of this directory was named.
    releases = releases_named(request.config.getoption("--lab-releases", default=DEFAULT.name))
    with Lab(nodes=2, releases=releases) as lab:
        request.config.stash[_LAB] = lab
        request.config.stash[_OPENZFS] = "/".join(_openzfs_version(node) for node in lab.nodes)
        _deploy(lab)
        yield lab
        del request.config.stash[_LAB]


@pytest.fixture(autouse=True)
def openzfs_told(request: pytest.FixtureRequest) -> None:
    """Tells reports which OpenZFS each test has seen, node1's first (the matrix's table shows it)."""
    if "lab" in request.fixturenames:
        request.getfixturevalue("lab")
        request.node.user_properties.append(("openzfs", request.config.stash[_OPENZFS]))


@pytest.fixture
def fresh_lab(lab: Lab) -> Lab:
    """The lab with an empty pool `tank` on every node, whole links and true clocks."""
    lab.reset()
    return lab


@pytest.fixture
def nodes(fresh_lab: Lab) -> list[Node]:
    """The nodes of a fresh lab, node1 first."""
    return fresh_lab.nodes


@pytest.fixture
def third_node(lab: Lab) -> Callable[[], Node]:
    """Gives node3, started when first asked for; it then stays, and is reset with the others."""

    def given() -> Node:
        if len(lab.nodes) < 3:
            lab.add_node().reset_pools()
            _deploy(lab)
        return lab["node3"]

    return given


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    lab = item.config.stash.get(_LAB, None)
    if lab is None or not report.failed or item.get_closest_marker("lab") is None:
        return report
    looks = [_seen(node) for node in lab.nodes]
    again = f"pytest --lab-keep '{item.nodeid}'"
    report.sections.append(("lab", "\n".join([*looks, f"To look at the nodes yourself: {again}"])))
    if item.config.getoption("--lab-keep", default=False):
        _hold(item, report, lab)
    return report


def _openzfs_version(node: Node) -> str:
    """The version of the kernel module that a node has loaded, such as 2.3.9."""
    return node.run("cat /sys/module/zfs/version").stdout.strip().partition("-")[0]


def _deploy(lab: Lab) -> None:
    if (_PACKAGE / "__main__.py").exists():
        lab.deploy(_PACKAGE)


def _seen(node: Node) -> str:
    texts = []
    for look in _LOOKS:
        try:
            done = node.run(look, check=False, timeout_s=20)
        except LabError as error:
            return f"{node.name}: {error}"
        texts.append(f"{node.name}# {look}\n{done.stdout}{done.stderr}")
    return "\n".join(texts)


def _hold(item: pytest.Item, report: pytest.TestReport, lab: Lab) -> None:
    item.config.pluginmanager.getplugin("capturemanager").suspend_global_capture(in_=True)
    print(f"\n{report.longreprtext}\n\n{item.nodeid} failed; its nodes are held up. In another shell:")
    for node in lab.nodes:
        print(f"    python -m lab ssh --held-by {os.getpid()} {node.name}")
    print("Ctrl-D or Ctrl-C here ends them.", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        sys.stdin.read()
    pytest.exit(f"held up at {item.nodeid}", returncode=1)
