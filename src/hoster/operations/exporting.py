"""Serves the metrics over HTTP: every scrape is a new look at this node, so what is silent looks old."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import NoReturn

from hoster.errors import OperationFailed
from hoster.operations.context import Context
from hoster.operations.measuring import measure
from hoster.records.metrics import Sample, register


def serve(context: Context, host: str, port: int, ready: Callable[[], None]) -> NoReturn:
    """Answers on that address until the process is ended; ``ready`` is called once it does.

    OperationFailed where it cannot listen there. One look at a time: further scrapes wait for it.
    """
    from prometheus_client import CollectorRegistry, start_http_server

    looking = threading.Lock()

    def samples() -> Sequence[Sample]:
        with looking:
            measured = measure(context)
        return (*measured.of_runs, *measured.of_node)

    registry = CollectorRegistry(auto_describe=False)
    register(registry, samples)
    try:
        start_http_server(port, host, registry)
    except OSError as error:
        raise OperationFailed(f"{host}:{port}: cannot listen there: {error.strerror}") from error
    ready()
    while True:
        threading.Event().wait()
