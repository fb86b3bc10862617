"""Keeps a runtime that fixes its threads at the start to fewer processors."""

import os
from contextlib import contextmanager, suppress


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
