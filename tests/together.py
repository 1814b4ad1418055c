"""Several processes of one training, as torchrun starts them, but forked from one that has imported everything."""

import multiprocessing
import os
import socket
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

PATIENCE_SECONDS = 300
"""Only for a test that hangs."""


def together(count: int, function: Callable[..., Any], *given: Any) -> list[Any]:
    """What `function` returns in each of so many processes of one training; an error is a result, too."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # for what is imported beforehand
    try:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["oncoseg.train", "oncoseg.cli.runs", "tiny", "runs"])
        results, port = context.Queue(), _free_port()
        processes = [
            context.Process(target=_work, args=(number, count, port, results, function, given))
            for number in range(count)
        ]
        for process in processes:
            process.start()
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
    found = dict(results.get(timeout=PATIENCE_SECONDS) for _ in processes)
    for process in processes:
        process.join(PATIENCE_SECONDS)
    assert [process.exitcode for process in processes] == [0] * count
    return [found[number] for number in range(count)]


def _work(
    number: int, count: int, port: int, results: Any, function: Callable[..., Any], given: tuple[Any, ...]
) -> None:
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("error")
    os.environ |= {
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }
    try:
        result = function(*given)
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    results.put((number, result))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # the first process is the others' meeting point until the end
        torch.distributed.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
