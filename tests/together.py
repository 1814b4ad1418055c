"""Several processes of one training, as torchrun starts them, forked from one that imported everything."""

import multiprocessing
import os
import pickle
import socket
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

PATIENCE_SECONDS = 120
"""Only for a test that hangs."""


def together(count: int, function: Callable[..., Any], *given: Any) -> list[Any]:
    """What `function` returns in each of so many processes of one training.

    An error is a result, too: its class and message. None is of a process that ended without any.
    """
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # for what is imported beforehand
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["oncoseg.train", "oncoseg.cli.runs", "tiny", "runs"])
    pipes, port = [context.Pipe() for _ in range(count)], _free_port()
    processes = [
        context.Process(target=_work, args=(number, count, port, pipes[number][1], function, given))
        for number in range(count)
    ]
    try:
        for process, (_, end) in zip(processes, pipes, strict=True):
            process.start()
            end.close()
        return [_received(pipe) for pipe, _ in pipes]
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
        for process in processes:
            process.join(1)
            process.kill()


def _received(pipe: Any) -> Any:
    assert pipe.poll(PATIENCE_SECONDS), "a process hangs"
    try:
        return pickle.loads(pipe.recv_bytes())
    except EOFError:
        return None


def _work(
    number: int, count: int, port: int, pipe: Any, function: Callable[..., Any], given: tuple[Any, ...]
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
        torch.distributed.barrier()  # the first process is the others' meeting point until the end
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    pipe.send_bytes(pickle.dumps(result))  # `send` would share tensors, which end with the process


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
