"""Work in processes of its own, some of which are killed."""

import multiprocessing
import signal
import threading
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import torch
from tqdm.auto import tqdm


def started(work: Callable[[], object]) -> BaseProcess:
    """A process that does the work."""

    def alone() -> None:
        torch.set_num_threads(1)  # a thread pool does not outlive a fork
        tqdm.set_lock(threading.RLock())  # its own is shared: who dies with it stops all others
        work()

    child = multiprocessing.get_context("fork").Process(target=alone)
    child.start()
    return child


def in_a_process_that_dies(work: Callable[[], object], after: float | None = None) -> None:
    """Do work in a process that kills itself, or is killed from outside after some seconds."""
    child = started(work)
    if after is not None:
        child.join(after)
        child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL or (after is not None and child.exitcode == 0)
