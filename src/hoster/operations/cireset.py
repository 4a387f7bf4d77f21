"""Gives a VM a new cloud-init set: passwords, instance, MAC, addresses, and if asked another name.

Everything is chosen and checked first; then it is put in its place (:mod:`hoster.operations.seeding`); a new
name comes last, by one ``zfs rename``. A VM's name is that of its dataset and nothing else, so a crash before
that leaves the same VM under its old name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from hoster.cloudinit.passwords import Secrets, new_instance_id, new_secrets
from hoster.cloudinit.seed import FILE_NAMES, Interface, Seed, seed, seed_image
from hoster.config.machine_file import MachineFile, with_changes
from hoster.config.networks import find_networks_file, read_networks
from hoster.errors import OperationFailed, Refused, ZfsError
from hoster.host.usage import bhyve_machines
from hoster.model.anchors import anchor_target
from hoster.model.machines import MachineConfig, SshKey
from hoster.model.plan import Outcome
from hoster.model.storage import View
from hoster.model.vms import Vm
from hoster.operations.addresses import hold_addresses
from hoster.operations.context import Context
from hoster.operations.history import hold_history
from hoster.operations.inventory import (
    Inventory,
    look_here,
    missing_from,
    read_config,
    refuse_missing,
    take_stock,
)
from hoster.operations.opening import AskForKey
from hoster.operations.power import hold_power, refuse_writers, running_now
from hoster.operations.seeding import (
    FILES,
    SEED,
    SeedSet,
    is_settled,
    put_in_place,
    refuse_strange_places,
    settle,
    shows_seed,
    with_seed_named,
)
from hoster.operations.takeover import Confirm, TakeoverRequest, take_over
from hoster.planning.reset import (
    MAC_NUMBERS,
    Link,
    Wishes,
    free_vnc_port,
    plan_link,
    renamed,
    with_link,
)

_KEY_OWNER = "System"
_KEEPS_ITS_NAMES = frozenset({"freebsd13ufs", "freebsd13zfs"})
"""Operating systems whose cards cloud-init must not give another name, as in Hoster."""


class ResetReport(Struct, frozen=True):
    """What a VM has got. In a dry run ``secrets`` and ``instance_id`` are None: there are none yet.

    ``network``, ``ip_address``, ``mac`` and ``dns_server`` are None for a VM without a network card.
    """

    vm: str
    dataset: str
    was_called: str
    vnc_port: int
    network: str | None
    ip_address: str | None
    mac: str | None
    dns_server: str | None
    search_domain: str
    ssh_keys: int
    instance_id: str | None
    secrets: Secrets | None
    notes: tuple[str, ...]
    dry_run: bool = False


class _Reset(Struct, frozen=True):
    """What is to be done to one VM, chosen and checked."""

    vm: Vm
    folder: Path
    name: str
    dataset: str
    link: Link | None
    vnc_port: int
    search_domain: str
    keys: tuple[SshKey, ...]
    notes: tuple[str, ...]


def cireset(
    context: Context,
    name: str,
    wishes: Wishes,
    takeover: TakeoverRequest,
    ask_for_key: AskForKey,
    confirm: Confirm,
) -> ResetReport:
    """Resets a VM; a replica takes over first (:mod:`hoster.operations.takeover`).

    Refused as that and as :func:`reset` refuse. Busy while it is replicated, and where somebody else starts
    or stops it, or is at work on its history.
    """
    # A VM in a dataset that is missing may have the name, address or port: refused before it takes over.
    view = _whole_view(context)
    vm = take_stock(context, view).named(name)
    notes: tuple[str, ...] = ()
    if not vm.is_primary:
        taken = take_over(context, takeover, ask_for_key, confirm).vms[0]
        if taken.outcome is Outcome.REFUSED:
            again = taken.remedy.replace(f"hoster change parent --vm {name}", f"hoster vm cireset {name}")
            raise Refused(f"{name}: {taken.reason}", hint=again)
        notes = (*taken.done, *taken.notes)
        if takeover.dry_run:
            raise Refused(
                f"{name} is a replica here: what it would get can be said once it has taken over",
                hint=f"hoster change parent --vm {name} --dry-run",
            )
    with ExitStack() as held:
        for called in sorted({name, wishes.new_name or name}):
            held.enter_context(hold_history(context, called, f"hoster vm cireset {name}"))
            held.enter_context(hold_power(context, called))
        report = reset(context, vm, wishes, dry_run=takeover.dry_run)
    return replace(report, notes=(*notes, *report.notes))


def reset(context: Context, vm: Vm, wishes: Wishes, *, dry_run: bool = False) -> ResetReport:
    """Gives the VM a new set. Its dataset must be mounted and writable; what its role is does not matter.

    The caller holds the power of the VM, and of its new name. Refused where it runs, cannot be read or
    written, or a name or an address is taken; UsageError for wishes that cannot be; ConfigurationError where
    this node's networks are not known, or strange things are in the way; OperationFailed if the disk refuses:
    the VM has its old set or the new one then, whole. Nothing is changed in a dry run.
    """
    _refuse_running(context, vm)
    with hold_addresses(context, f"hoster vm cireset {vm.name}", wait=not dry_run):
        view = _whole_view(context)
        stock = take_stock(context, view)
        vm = stock.named(vm.name)
        folder, file = _readable(vm)
        plan = _plan(context, vm, folder, file.config, stock, view, wishes)
        if dry_run:
            return _report(plan, None, None, dry_run=True)
        secrets, instance = new_secrets(), new_instance_id()
        contents = _contents(plan, secrets, instance, file.config.os_type)
        config = _config(context, plan, settle(folder, file), secrets)
        put_in_place(folder, SeedSet(config, seed_image(contents), contents.files))
    if plan.dataset != vm.dataset.name:
        _rename(context, plan)
    return _report(plan, secrets, instance, dry_run=False)


def _whole_view(context: Context) -> View:
    view = look_here(context)
    refuse_missing(missing_from(context, view.datasets))
    return view


def _refuse_running(context: Context, vm: Vm) -> None:
    if running_now(context, vm) is not None or vm.name in bhyve_machines():
        raise Refused(f"{vm.name} runs", hint=f"hoster vm stop {vm.name}")
    refuse_writers(vm)


def _readable(vm: Vm) -> tuple[Path, MachineFile]:
    """Where the VM is, and its configuration."""
    where = vm.dataset
    if not where.mounted or where.mountpoint is None:
        raise Refused(vm.problem or f"{where.name} is not mounted", hint=f"zfs mount {where.name}")
    if any(dataset.marks.swap is not None for dataset in vm.everything):
        raise Refused(
            f"{vm.name} is on its way back to an older version, and that was not finished",
            hint="the next rollback of it finishes that first",
        )
    if where.readonly:
        raise Refused(f"{where.name} is read-only", hint=f"zfs inherit readonly {where.name}")
    file = read_config(where)
    if file is None:
        raise OperationFailed(f"{vm.name}: {vm.problem or 'it has no configuration'}")
    return Path(where.mountpoint), file


def _plan(
    context: Context,
    vm: Vm,
    folder: Path,
    config: MachineConfig,
    stock: Inventory,
    view: View,
    wishes: Wishes,
) -> _Reset:
    settings = context.settings
    others = [o.config for o in stock.vms if o.dataset.name != vm.dataset.name and o.config is not None]
    networks = read_networks(find_networks_file(settings.read_from)) if config.networks else ()
    link = plan_link(config, others, networks, wishes, _numbers())
    dataset = vm.dataset.name
    beside = {d.name.rpartition("/")[2] for parent in context.datasets for d in view.children(parent)}
    if wishes.new_name and wishes.new_name != vm.name:
        dataset = renamed(dataset, [d.name for d in vm.descendants], wishes.new_name, beside)
    keys = tuple(SshKey(_KEY_OWNER, key, _comment(key)) for key in settings.ssh_keys)
    refuse_strange_places(folder, FILE_NAMES)
    return _Reset(
        vm=vm,
        folder=folder,
        name=dataset.rpartition("/")[2],
        dataset=dataset,
        link=link,
        vnc_port=free_vnc_port(others),
        search_domain=config.dns_search_domain
        or settings.dns_search_domain
        or f"{context.hostname}.internal.lan",
        keys=keys,
        notes=(*_notes(folder, config, keys, link, stock), *_notes_on_name(vm, dataset, beside)),
    )


def _numbers() -> Iterator[int]:
    import secrets

    while True:
        yield secrets.randbelow(MAC_NUMBERS)


def _comment(key: str) -> str:
    """What stands behind the key in a line of authorized_keys that begins with its type."""
    return " ".join(key.split()[2:])


def _notes(
    folder: Path, config: MachineConfig, keys: Sequence[SshKey], link: Link | None, stock: Inventory
) -> Iterator[str]:
    """What whoever asked may not expect."""
    dropped = [key for key in config.ssh_keys if key.value not in {kept.value for kept in keys}]
    if dropped:
        names = ", ".join(key.comment or key.owner or "one without a comment" for key in dropped)
        yield f"ssh keys of its own that it loses ({len(dropped)}): {names}"
    if not keys:
        yield "this node has no ssh keys for VMs (ssh-keys in its settings): only passwords open this one"
    if link is not None and config.networks[0].bridge not in {"", link.network.name}:
        yield f"it moves from the network {config.networks[0].bridge} to {link.network.name}"
    if not shows_seed(config):
        yield "its disks have no seed.iso, so its guest will not see any of this: add it as an ahci-cd"
    if not is_settled(folder, config):
        yield "an earlier cireset was cut short; what it left is put right first"
    unread = [other.name for other in stock.vms if other.is_primary and other.config is None]
    unread += [broken.name for broken in stock.unusable]
    if unread:
        yield f"addresses and ports of VMs that cannot be read here are not known: {', '.join(unread)}"


def _notes_on_name(vm: Vm, dataset: str, beside: Collection[str]) -> Iterator[str]:
    """What else is called as the VM was, where it gets another name."""
    if dataset == vm.dataset.name:
        return
    if any(anchor_target(bookmark) for part in vm.everything for bookmark in part.bookmarks):
        yield (
            f"its replicas are still called {vm.name}: rename them on their nodes (zfs rename), or the next"
            " replication sends everything again"
        )
    if any(name.startswith(f"{vm.name}.branch-") for name in beside):
        yield f"its branches are still called {vm.name}: hoster vm branches {vm.name}"


def _contents(plan: _Reset, secrets: Secrets, instance_id: str, os_type: str) -> Seed:
    link = plan.link
    interface = None
    if link is not None:
        interface = Interface(
            mac=link.mac,
            address=link.address_with_prefix,
            gateway=str(link.network.gateway),
            dns_servers=(str(link.dns_server),),
            search_domain=plan.search_domain,
            name=None if os_type in _KEEPS_ITS_NAMES else "eth0",
        )
    return seed(
        hostname=plan.name,
        instance_id=instance_id,
        root_password=secrets.root,
        gwitsuper_password=secrets.gwitsuper,
        ssh_keys=[key.value for key in plan.keys],
        interface=interface,
    )


def _config(context: Context, plan: _Reset, before: MachineFile, secrets: Secrets) -> MachineFile:
    """The configuration in its final form: all that is not reset stays, keys unknown here included."""
    kept = tuple(key for key in before.config.ssh_keys if key in plan.keys)
    after = with_changes(before, ssh_keys=kept)  # what is new must not inherit from what is dropped
    after = with_changes(
        after,
        ssh_keys=plan.keys,
        parent_host=context.hostname,
        vnc_port=plan.vnc_port,
        vnc_password=secrets.vnc,
    )
    if plan.link is not None:
        first, *others = after.config.networks
        after = with_changes(after, networks=(with_link(first, plan.link), *others))
    return with_seed_named(after, SEED)


def _rename(context: Context, plan: _Reset) -> None:
    before = plan.vm.dataset.name
    try:
        context.zfs.rename(before, plan.dataset)
    except ZfsError as error:
        raise OperationFailed(
            f"{plan.vm.name} has its new set, and its old name: {error.message}",
            hint=f"zfs rename {before} {plan.dataset} (its passwords are in {plan.folder / FILES})",
        ) from error


def _report(plan: _Reset, secrets: Secrets | None, instance_id: str | None, *, dry_run: bool) -> ResetReport:
    link = plan.link
    return ResetReport(
        vm=plan.name,
        dataset=plan.dataset,
        was_called=plan.vm.name,
        vnc_port=plan.vnc_port,
        network=None if link is None else link.network.name,
        ip_address=None if link is None else link.address_with_prefix,
        mac=None if link is None else link.mac,
        dns_server=None if link is None else str(link.dns_server),
        search_domain=plan.search_domain,
        ssh_keys=len(plan.keys),
        instance_id=instance_id,
        secrets=secrets,
        notes=plan.notes,
        dry_run=dry_run,
    )
