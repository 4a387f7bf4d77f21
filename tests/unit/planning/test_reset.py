"""What a VM gets anew: nothing that another VM has, nothing that its network has no room for."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hoster.errors import Refused, UsageError
from hoster.model.machines import MachineConfig, NetworkCard
from hoster.model.networks import Network
from hoster.planning.reset import (
    FIRST_VNC_PORT,
    LAST_VNC_PORT,
    MAC_NUMBERS,
    Link,
    Wishes,
    free_address,
    free_mac,
    free_vnc_port,
    plan_link,
    renamed,
    with_link,
)


def network(name: str, subnet: str, first: str, last: str) -> Network:
    whole = ip_network(subnet)
    return Network(name, whole, whole[1], ip_address(first), ip_address(last), f"the {name} one")


INTERNAL = network("internal", "10.0.1.0/24", "10.0.1.10", "10.0.1.20")
OUTSIDE = network("outside", "192.168.8.0/22", "192.168.8.2", "192.168.11.254")
NETWORKS = (INTERNAL, OUTSIDE)
CARD = NetworkCard("virtio-net", "old", "58:9C:FC:00:00:01", "10.0.1.10", "its old network")
ONE_CARD = MachineConfig(networks=(CARD,))


def vm(*addresses: str, mac: str = "", vnc_port: int = 0) -> MachineConfig:
    cards = tuple(NetworkCard(mac=mac, ip_address=address) for address in addresses)
    return MachineConfig(vnc_port=vnc_port, networks=cards)


def linked(
    wishes: Wishes,
    *others: MachineConfig,
    config: MachineConfig = ONE_CARD,
    numbers: tuple[int, ...] = (7,),
) -> Link:
    link = plan_link(config, others, NETWORKS, wishes, numbers)
    assert link is not None
    return link


def test_without_wishes_it_gets_the_first_network_a_free_address_and_the_gateway_as_its_name_server() -> None:
    link = linked(Wishes(), vm("10.0.1.11", "10.0.1.12"), vm("not an address"))

    assert link == Link(INTERNAL, ip_address("10.0.1.13"), "58:9c:fc:00:00:07", ip_address("10.0.1.1"))
    assert link.address_with_prefix == "10.0.1.13/24"


def test_its_own_former_address_is_not_given_again_unless_asked_for() -> None:
    assert linked(Wishes()).address == ip_address("10.0.1.11")
    assert linked(Wishes(ip_address="10.0.1.10")).address == ip_address("10.0.1.10")


def test_a_card_without_an_address_gets_the_first_of_the_range() -> None:
    assert linked(Wishes(), config=vm("DHCP")).address == ip_address("10.0.1.10")


def test_what_was_asked_for_is_given() -> None:
    wishes = Wishes(network="outside", ip_address="192.168.9.77", dns_server="9.9.9.9")

    link = linked(wishes)

    assert (link.network, link.address_with_prefix) == (OUTSIDE, "192.168.9.77/22")
    assert link.dns_server == ip_address("9.9.9.9")


def test_an_address_outside_the_range_may_be_asked_for_if_a_vm_could_have_it() -> None:
    assert linked(Wishes(ip_address="10.0.1.200")).address == ip_address("10.0.1.200")


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        (Wishes(network="dmz"), "there is no network 'dmz'"),
        (Wishes(ip_address="10.0.1"), "is not an IP address"),
        (Wishes(ip_address="10.0.2.5"), "cannot be the address of a VM in the network internal"),
        (Wishes(ip_address="10.0.1.1"), "with the gateway 10.0.1.1"),
        (Wishes(dns_server="ns1.example"), "is not the address of a name server"),
    ],
)
def test_what_cannot_be_is_an_error_of_whoever_typed_it(wishes: Wishes, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        linked(wishes)


def test_an_address_of_another_vm_or_of_its_own_second_card_is_refused() -> None:
    two_cards = MachineConfig(networks=(CARD, NetworkCard(ip_address="10.0.1.15")))
    with pytest.raises(Refused, match=r"10\.0\.1\.14"):
        linked(Wishes(ip_address="10.0.1.14"), vm("10.0.9.9", "10.0.1.14"))
    with pytest.raises(Refused, match=r"10\.0\.1\.15"):
        linked(Wishes(ip_address="10.0.1.15"), config=two_cards)


def test_a_range_in_which_all_is_taken_is_refused() -> None:
    with pytest.raises(Refused, match="no address left"):
        linked(Wishes(), vm(*(f"10.0.1.{n}" for n in range(11, 21))))


def test_a_gateway_within_the_range_is_passed_over() -> None:
    narrow = replace(INTERNAL, first=ip_address("10.0.1.0"))
    assert free_address(narrow, set()) == ip_address("10.0.1.2")


def test_a_vm_without_a_card_gets_no_connection_and_wishes_for_one_are_an_error() -> None:
    assert plan_link(MachineConfig(), (), (), Wishes(new_name="web2"), ()) is None
    for wishes in (Wishes(network="a"), Wishes(ip_address="10.0.1.9"), Wishes(dns_server="9.9.9.9")):
        with pytest.raises(UsageError, match="no network card"):
            plan_link(MachineConfig(), (), NETWORKS, wishes, ())


def test_a_mac_that_any_card_has_in_either_case_is_not_given() -> None:
    others = (vm("10.0.1.11", mac="58:9C:fc:00:00:02"),)
    assert linked(Wishes(), *others, numbers=(1, 2, 0xFFFFFF)).mac == "58:9c:fc:ff:ff:ff"


@given(st.sets(st.integers(0, MAC_NUMBERS - 1), max_size=20), st.integers(0, MAC_NUMBERS - 21))
def test_a_mac_has_six_pairs_of_digits_and_is_nobody_elses(taken: set[int], start: int) -> None:
    macs = {free_mac(set(), iter([number])) for number in taken}

    mac = free_mac(macs, iter(range(start, start + 21)))

    assert mac not in macs
    assert mac.startswith("58:9c:fc:")
    assert len(bytes.fromhex(mac.replace(":", ""))) == 6


@given(st.sets(st.integers(FIRST_VNC_PORT, FIRST_VNC_PORT + 8)))
def test_the_vnc_port_is_the_lowest_that_nobody_has(taken: set[int]) -> None:
    port = free_vnc_port([vm(vnc_port=port) for port in taken])

    assert port not in taken
    assert taken >= set(range(FIRST_VNC_PORT, port))


def test_where_all_vnc_ports_are_taken_it_is_refused() -> None:
    with pytest.raises(Refused, match="every VNC port"):
        free_vnc_port([vm(vnc_port=port) for port in range(FIRST_VNC_PORT, LAST_VNC_PORT + 1)])


def test_the_card_stays_what_it_is_and_is_connected_anew() -> None:
    link = linked(Wishes())
    expected = NetworkCard("virtio-net", "internal", link.mac, "10.0.1.11", "the internal one")
    assert with_link(CARD, link) == expected


def test_a_new_name_is_that_of_a_dataset_in_the_same_place() -> None:
    assert renamed("tank/vm/web1", ["tank/vm/web1/data"], "web2", {"web1", "mail"}) == "tank/vm/web2"


@pytest.mark.parametrize("name", ["", "-x", "a/b", "a b", "web.branch-2024", "x" * 250])
def test_a_name_that_cannot_be_is_an_error(name: str) -> None:
    with pytest.raises(UsageError):
        renamed("tank/vm/web1", [], name, set())


def test_a_name_too_long_for_what_lies_below_is_an_error() -> None:
    long = "x" * 200
    assert renamed("tank/vm/web1", [], long, set()) == f"tank/vm/{long}"
    with pytest.raises(UsageError, match="too long"):
        renamed("tank/vm/web1", ["tank/vm/web1/and-some-more"], long, set())


def test_a_name_that_a_dataset_or_a_branch_has_is_refused() -> None:
    with pytest.raises(Refused, match="mail"):
        renamed("tank/vm/web1", [], "mail", {"mail"})
    with pytest.raises(Refused, match="branches"):
        renamed("tank/vm/web1", [], "mail", {"mail.branch-20240101T000000Z"})
