"""Keeps a runtime to a number of threads, or to as many processors."""

import os
from contextlib import contextmanager, suppress

from tfprune import _keras


@contextmanager
def kept_to(number):
    """Lets all threads of this process run on the first `number` of its processors only.

    Only Linux can; elsewhere nothing is changed.

    Args:
        number: Number of processors, or `None` to change nothing.
    """
    before = {} if number is None else _allowed()
    try:
        for thread, processors in before.items():
            _allow(thread, sorted(processors)[:number])
        yield
    finally:
        for thread, processors in before.items():
            _allow(thread, processors)


@contextmanager
def torch_threads(number):
    """Lets PyTorch compute with `number` threads for a while; `None` changes nothing."""
    if number is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def limited_to(number):
    """Returns a context in which the backend of Keras computes with `number` threads.

    TensorFlow and JAX fix their number when they start: on Linux they are kept to as many
    processors. `None` changes nothing.
    """
    return torch_threads(number) if _keras.backend() == "torch" else kept_to(number)


def can_keep():
    """Whether this system can keep threads to some of its processors."""
    return hasattr(os, "sched_setaffinity") and os.path.isdir("/proc/self/task")


def _allowed():
    """Returns `{thread: processors}` of this process."""
    found = {}
    if can_keep():
        for name in os.listdir("/proc/self/task"):
            try:
                found[int(name)] = os.sched_getaffinity(int(name))
            except OSError:
                # The thread has ended in the meantime.
                continue
    return found


def _allow(thread, processors):
    # The thread may have ended in the meantime.
    with suppress(OSError):
        os.sched_setaffinity(thread, processors)
