"""The same work on many items spread over a Ray cluster: one task for each, retried where it fails.

For one machine, `oncoseg.processes` does without Ray. Every machine of the cluster needs this package, and
must see the same files under the same paths.
"""

import os
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from oncoseg.errors import RunError

LOCAL = "local"
"""In place of an address: a cluster of this machine only, for as long as the work takes."""

RETRIES = 3
"""How often a task is tried again whose process was ended (as for want of memory) or whose disk failed."""

PATIENCE_SECONDS = 10.0
"""For the answer of a cluster's first machine."""

WAITING = 4
"""Tasks handed over for each processor; more would only fill the memory of the one who plans them."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Spread(Protocol):
    """Gives the results of a function of all items, in the order in which they are done."""

    def __call__(
        self, function: Callable[[Item], Result], items: Collection[Item], each_gib: float = 0.0
    ) -> Iterator[Result]:
        """As the class says.

        Args:
            function: of one item; of a module, so that it can be sent elsewhere.
            items: what to work on.
            each_gib: memory that one task needs; no more are started on a machine than fit.
        """


@contextmanager
def cluster(address: str, *, processors: int | None = None, gpus: bool = False) -> Iterator[Spread]:
    """Connect to a cluster, and leave it again.

    Args:
        address: `local`, `auto` for the one that this machine belongs to, or `ray://HOST:PORT`.
        processors: of a local one; None for all.
        gpus: each task takes a GPU, where the cluster has any.

    Raises:
        RunError: Ray is not installed, or there is no such cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise RunError(
            "A cluster needs Ray, which is not installed; expected the extra `ray`. Install it with: "
            "pip install 'oncoseg[ray]'"
        ) from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    own: dict[str, Any] = {"num_cpus": processors, "include_dashboard": False}
    try:
        _check_reachable(address)
        place = own if address == LOCAL else {"address": address}
        ray.init(**place, log_to_driver=False, logging_level="error")
    except (OSError, ValueError) as error:
        raise RunError(
            f"There is no Ray cluster at {address} ({str(error).splitlines()[0]}). Start one with "
            f"`ray start`, or use {LOCAL}."
        ) from error
    try:
        there = ray.cluster_resources()
        options = {
            "num_cpus": 1,
            "num_gpus": int(gpus and there.get("GPU", 0) > 0),
            "max_retries": RETRIES,
            "retry_exceptions": [RunError, OSError],
        }
        yield _Tasks(ray, options, WAITING * max(1, int(there.get("CPU", 1))))
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise OSError or ValueError where nobody answers: Ray itself tries for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), PATIENCE_SECONDS).close()


class _Tasks:
    def __init__(self, ray: Any, options: Mapping[str, Any], ahead: int) -> None:
        self._ray, self._options, self._ahead = ray, options, ahead

    def __call__(
        self, function: Callable[[Item], Result], items: Collection[Item], each_gib: float = 0.0
    ) -> Iterator[Result]:
        """The results of those that succeed.

        Raises:
            RunError: after all others, where some failed each time.
        """
        sent, queue, failures = self._ray.put(function), iter(items), []
        pending: list[Any] = []
        # a task for which no machine is large enough would wait for ever
        largest = max(machine["Resources"].get("memory", 0.0) for machine in self._ray.nodes())
        memory = int(min(each_gib * 2**30, largest)) or None
        task = self._ray.remote(_call).options(**self._options, memory=memory)
        while True:
            while len(pending) < self._ahead and (item := next(queue, None)) is not None:
                pending.append(task.remote(sent, item))
            if not pending:
                break
            done, pending = self._ray.wait(pending)
            for one in done:
                try:
                    result: Result = self._ray.get(one)
                except self._ray.exceptions.RayError as error:
                    failures.append(str(getattr(error, "cause", None) or type(error).__name__))
                else:
                    yield result
        if failures:
            raise RunError(
                f"{len(failures)} of {len(items)} tasks failed on the cluster, each {1 + RETRIES} times; the "
                f"first: {failures[0]} What the others wrote is kept: run the same command again."
            )


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    return function(item)
