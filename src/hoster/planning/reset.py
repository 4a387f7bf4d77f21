"""Decides what a VM gets anew when its cloud-init set is made again: address, MAC, VNC port, name.

Pure: chance comes in as numbers, and nothing is looked up. What it chooses, no other VM of the node has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from ipaddress import ip_address

from msgspec import Struct
from msgspec.structs import replace

from hoster.errors import Refused, UsageError
from hoster.model.machines import MachineConfig, NetworkCard
from hoster.model.names import dataset_name, vm_name
from hoster.model.networks import IpAddress, Network

FIRST_VNC_PORT = 5900
LAST_VNC_PORT = 7999
MAC_PREFIX = "58:9c:fc"
"""The manufacturer's part of every address: that of bhyve's cards, as in Hoster."""

MAC_NUMBERS = 1 << 24
"""How many numbers the other half of a MAC address has."""


class Wishes(Struct, frozen=True):
    """What was asked for; an empty text leaves the choice to hoster."""

    new_name: str = ""
    network: str = ""
    ip_address: str = ""
    dns_server: str = ""


class Link(Struct, frozen=True):
    """How the VM's first card is connected: what its guest is to be told."""

    network: Network
    address: IpAddress
    mac: str
    dns_server: IpAddress

    @property
    def address_with_prefix(self) -> str:
        return f"{self.address}/{self.network.subnet.prefixlen}"


def plan_link(
    config: MachineConfig,
    others: Sequence[MachineConfig],
    networks: Sequence[Network],
    wishes: Wishes,
    numbers: Iterable[int],
) -> Link | None:
    """The new connection of the first card, or None for a VM that has no card.

    ``networks`` are those of the node, the default one first; ``numbers`` are by chance, each below
    MAC_NUMBERS, and as many as it takes. UsageError for a network that there is not, for an address or a
    name server that is none, or is not one for a VM of that network; Refused for one that is taken, and
    where the range is exhausted.
    """
    if not config.networks:
        if wishes.network or wishes.ip_address or wishes.dns_server:
            raise UsageError(
                "the VM has no network card, so it can get neither a network, an address nor a name server",
                hint="add one to networks in its vm_config.json",
            )
        return None
    network = network_named(networks, wishes.network)
    cards = [card for other in others for card in other.networks] + list(config.networks[1:])
    taken = {address for card in cards if (address := _address(card.ip_address)) is not None}
    if wishes.ip_address:
        address = _asked_for(network, wishes.ip_address, taken)
    else:
        before = _address(config.networks[0].ip_address)
        address = free_address(network, taken if before is None else {*taken, before})
    server = _address(wishes.dns_server) if wishes.dns_server else network.gateway
    if server is None:
        raise UsageError(f"{wishes.dns_server!r} is not the address of a name server, such as 10.0.0.1")
    macs = {card.mac.lower() for card in (*cards, config.networks[0])}
    return Link(network, address, free_mac(macs, iter(numbers)), server)


def free_address(network: Network, taken: Collection[IpAddress]) -> IpAddress:
    """The lowest address of the network's range that nobody has; Refused where there is none.

    The VM's own former address counts as taken: another copy of it may come back with that.
    """
    for number in range(int(network.first), int(network.last) + 1):
        address = type(network.first)(number)
        if address not in taken and network.has_room_for(address):
            return address
    raise Refused(
        f"the network {network.name} has no address left between {network.first} and {network.last}",
        hint="name one with --ip-address, or another network with --network-name",
    )


def free_mac(taken: Collection[str], numbers: Iterator[int]) -> str:
    """The first of the numbers, as a MAC address, that is not in ``taken`` (lower case).

    >>> free_mac({"58:9c:fc:00:00:01"}, iter([1, 0xabcdef]))
    '58:9c:fc:ab:cd:ef'
    """
    macs = (f"{MAC_PREFIX}:{n >> 16:02x}:{n >> 8 & 255:02x}:{n & 255:02x}" for n in numbers)
    return next(mac for mac in macs if mac not in taken)


def free_vnc_port(others: Sequence[MachineConfig]) -> int:
    """The lowest VNC port that none of them has; Refused where there is none."""
    taken = {other.vnc_port for other in others}
    for port in range(FIRST_VNC_PORT, LAST_VNC_PORT + 1):
        if port not in taken:
            return port
    raise Refused(f"every VNC port from {FIRST_VNC_PORT} to {LAST_VNC_PORT} belongs to a VM of this node")


def with_link(card: NetworkCard, link: Link) -> NetworkCard:
    """The card, connected so; what kind it is stays."""
    return replace(
        card,
        bridge=link.network.name,
        mac=link.mac,
        ip_address=str(link.address),
        comment=link.network.comment,
    )


def renamed(root: str, descendants: Sequence[str], new_name: str, beside: Collection[str]) -> str:
    """What the dataset ``root`` is called once its VM has the new name.

    ``descendants`` are the datasets below it, ``beside`` the last parts of all names of datasets that lie
    where VMs do. UsageError for a name that cannot be, Refused for one that is taken.
    """
    try:
        vm_name(new_name)
        parent = root.rpartition("/")[0]
        for name in (root, *descendants):
            dataset_name(f"{parent}/{new_name}{name[len(root) :]}")
    except ValueError as error:
        raise UsageError(str(error)) from None
    if new_name in beside:
        raise Refused(f"there is a dataset {new_name} on this node already", hint="choose another name")
    if any(name.startswith(f"{new_name}.branch-") for name in beside):
        raise Refused(
            f"there are branches of another VM {new_name} on this node",
            hint=f"choose another name; to see them: hoster vm branches {new_name}",
        )
    return f"{parent}/{new_name}"


def network_named(networks: Sequence[Network], name: str) -> Network:
    """The network of that name, the first one for an empty name; UsageError where there is none."""
    if not name:
        return networks[0]
    for network in networks:
        if network.name == name:
            return network
    known = ", ".join(network.name for network in networks)
    raise UsageError(f"there is no network {name!r} on this node", hint=f"there are: {known}")


def _asked_for(network: Network, text: str, taken: Collection[IpAddress]) -> IpAddress:
    address = _address(text)
    if address is None:
        raise UsageError(f"{text!r} is not an IP address, such as {network.first}")
    if not network.has_room_for(address):
        raise UsageError(
            f"{address} cannot be the address of a VM in the network {network.name}, which is"
            f" {network.subnet} with the gateway {network.gateway}",
            hint=f"VMs there have addresses from {network.first} to {network.last}",
        )
    if address in taken:
        raise Refused(
            f"another card of a VM on this node has the address {address}",
            hint="hoster vm list; without --ip-address a free one is chosen",
        )
    return address


def _address(text: str) -> IpAddress | None:
    try:
        return ip_address(text.strip())
    except ValueError:
        return None
