"""The metrics: which there are, and how samples of them become Prometheus' text format.

Moments are timestamps, not ages: silence then shows by itself, since the reader's clock goes on. The last two
are the original exporter's, for the dashboards that have them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from hoster.records.whole import write_whole

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import GaugeMetricFamily


class Metric(Struct, frozen=True):
    """A metric: a gauge, like all of them, with the labels that each of its samples has."""

    name: str
    labels: tuple[str, ...]
    meaning: str


class Sample(Struct, frozen=True):
    """One value of a metric."""

    metric: str
    labels: Mapping[str, str]
    value: float


Measure = Callable[[], Iterable[Sample]]
"""Measures now."""

_REPLICA = ("vm", "target", "dataset")
# Not "job", which is Prometheus' own label for whom it scrapes.
_JOB = ("name", "kind")

METRICS = (
    Metric("hoster_build_info", ("version",), "1; the release of hoster that measured."),
    Metric("hoster_measured_timestamp_seconds", (), "When these metrics were put together."),
    Metric("hoster_look_success", (), "1 if this node's ZFS could be looked at, all of it, else 0."),
    Metric("hoster_journal_success", (), "1 if the journal of runs could be read, else 0."),
    Metric(
        "hoster_replication_newest_version_timestamp_seconds",
        _REPLICA,
        "When the newest version that the target is known to have was taken.",
    ),
    Metric(
        "hoster_replication_last_seen_equal_timestamp_seconds",
        _REPLICA,
        "The last moment at which the VM and its replica were seen equal.",
    ),
    Metric(
        "hoster_replication_data_timestamp_seconds",
        _REPLICA,
        "From when the data on the target are: the later one of the two above.",
    ),
    Metric(
        "hoster_replication_promise_seconds",
        _REPLICA,
        "By how much the data on the target may be older than those here, as promised.",
    ),
    Metric(
        "hoster_replication_due_timestamp_seconds",
        _REPLICA,
        "When the data on the target become older than promised, counting the target's windows only;"
        " where a schedule wants some and there are none, since hoster.toml was changed.",
    ),
    Metric(
        "hoster_replication_behind_bytes",
        _REPLICA,
        "What was written to the VM since the newest version that the target is known to have.",
    ),
    Metric("hoster_replication_last_run_timestamp_seconds", _REPLICA, "When the last run ended."),
    Metric(
        "hoster_replication_last_success_timestamp_seconds",
        _REPLICA,
        "When the last run ended after which the target had everything.",
    ),
    Metric(
        "hoster_replication_last_outcome",
        (*_REPLICA, "outcome"),
        "1 for the outcome of the last run, 0 for the others.",
    ),
    Metric(
        "hoster_replication_refused",
        (*_REPLICA, "ground"),
        "1 if the last run refused the VM, with the ground for it.",
    ),
    Metric("hoster_replication_last_duration_seconds", _REPLICA, "How long the last run sent this VM."),
    Metric("hoster_replication_last_sent_bytes", _REPLICA, "What the last run sent of this VM."),
    Metric(
        "hoster_replication_failures_since_success",
        _REPLICA,
        "How many runs have failed or were refused since the last success.",
    ),
    Metric("hoster_job_last_run_timestamp_seconds", _JOB, "When the job's last run ended."),
    Metric(
        "hoster_job_last_success_timestamp_seconds",
        _JOB,
        "When the job's last run with exit code 0 ended.",
    ),
    Metric("hoster_job_last_exit_code", _JOB, "The exit code of the job's last run."),
    Metric(
        "hoster_job_failures_since_success",
        _JOB,
        "How many runs ended with another exit code than 0 since then; busy ones do not count.",
    ),
    Metric("hoster_job_error_marker", ("name",), "1 if there is an error marker of the job."),
    Metric("hoster_vm_info", ("vm", "role", "parent", "production"), "1; what a VM is on this node."),
    Metric("hoster_vm_targets", ("vm",), "How many targets are known to have a version of the VM."),
    Metric("hoster_vms_unusable", (), "How many look like VMs and cannot be used."),
    Metric("hoster_vm_snapshots", ("vm", "type"), "Snapshots of a type; other: those with names of yours."),
    Metric(
        "hoster_vm_oldest_snapshot_timestamp_seconds",
        ("vm", "type"),
        "When the oldest of them was taken.",
    ),
    Metric(
        "hoster_vm_newest_snapshot_timestamp_seconds",
        ("vm", "type"),
        "When the newest of them was taken.",
    ),
    Metric("hoster_vm_held_snapshots", ("vm",), "Snapshots that are held."),
    Metric("hoster_vm_branches", ("vm",), "Branches of a VM that lie on this node."),
    Metric("hoster_vm_branch_bytes", ("vm",), "What the end of these branches would free."),
    Metric("hoster_pool_health", ("pool", "state"), "1; the state of a pool, such as ONLINE."),
    Metric("hoster_pool_healthy", ("pool",), "1 if the pool is ONLINE, else 0, also if it is gone."),
    Metric("hoster_pool_size_bytes", ("pool",), "The size of a pool."),
    Metric("hoster_pool_allocated_bytes", ("pool",), "What of it is taken."),
    Metric("hoster_pool_free_bytes", ("pool",), "What of it is free."),
    Metric("hoster_pool_fragmentation_ratio", ("pool",), "How fragmented its free space is, from 0 to 1."),
    Metric(
        "hoster_pool_verified_timestamp_seconds",
        ("pool",),
        "When the last scrub ended that read all of it and found nothing wrong; 0: there is none.",
    ),
    Metric("hoster", ("counter", "version"), "The original's: VMs by counter, and the version."),
    Metric("zpool_info", ("pool", "info"), "The original's: size, allocated, free and so on of a pool."),
)
"""In the order in which they are shown."""

NODE_METRICS = frozenset(
    {
        *(metric.name for metric in METRICS if metric.name.startswith("hoster_pool_")),
        *("hoster", "zpool_info"),
    }
)
"""What only ``hoster metrics`` and the exporter measure: a run does not look at it. In the folder of the
textfile collector they have a file of their own, so that no run takes them away."""

RUN_FILE = "hoster.prom"
NODE_FILE = "hoster_node.prom"

_BY_NAME = {metric.name: metric for metric in METRICS}
_MODE = 0o644


def exposition(samples: Iterable[Sample]) -> bytes:
    """The samples in Prometheus' text format, those of one metric together. KeyError for one of a metric that
    is not in :data:`METRICS`."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    register(registry, lambda: samples)
    return generate_latest(registry)


def register(registry: CollectorRegistry, measure: Measure) -> None:
    """Lets ``registry`` have the samples that ``measure`` gives each time it is asked."""
    from prometheus_client.registry import Collector

    class Measuring(Collector):
        def collect(self) -> Iterator[GaugeMetricFamily]:
            return families(measure())

    registry.register(Measuring())


def write_metrics(folder: Path, name: str, samples: Iterable[Sample]) -> str:
    """Writes the samples for node_exporter's textfile collector; why that failed, or nothing."""
    path = folder / name
    try:
        write_whole(path, exposition(samples).decode(), mode=_MODE)
    except OSError as error:
        return f"{path}: the metrics cannot be written: {error.strerror}"
    return ""


def families(samples: Iterable[Sample]) -> Iterator[GaugeMetricFamily]:
    """The samples as prometheus_client has them."""
    from prometheus_client.core import GaugeMetricFamily

    found: dict[str, list[Sample]] = {}
    for sample in samples:
        assert set(sample.labels) <= set(_BY_NAME[sample.metric].labels), sample
        found.setdefault(sample.metric, []).append(sample)
    for metric in METRICS:
        if metric.name in found:
            family = GaugeMetricFamily(metric.name, metric.meaning)
            for sample in found[metric.name]:
                family.add_sample(metric.name, dict(sample.labels), sample.value)
            yield family
