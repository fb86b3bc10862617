"""A progress bar with an estimate of the remaining time."""

import sys
import time
from contextlib import contextmanager

# Drawing takes milliseconds, which must not slow down measurements between two steps.
_SECONDS_BETWEEN = 0.1


@contextmanager
def progress(total, what, verbose=1):
    """Shows a progress bar on the standard error while the steps of a task are done.

    It is drawn only where a step ends, and only on a terminal or in a notebook.

    Args:
        total: Number of steps.
        what: What the task does, as text.
        verbose: 0 shows nothing.

    Yields:
        A function to call after each step, with a text to show next to the bar if there is one.
    """
    if not verbose or not _is_watched():
        yield lambda note="": None
        return
    from rich import progress as bars
    from rich.console import Console

    with bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(bar_width=24),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TextColumn("left:"),
        bars.TimeRemainingColumn(),
        bars.TextColumn("{task.fields[note]}"),
        # In a notebook, rich would draw with ipywidgets, or warn that they are not installed; the
        # plain line works in both, and stays out of the outputs that belong to a cell's own code.
        console=Console(stderr=True, force_terminal=True, force_jupyter=False),
        auto_refresh=False,
        transient=True,
    ) as bar:
        task = bar.add_task(what, total=total, note="")
        bar.refresh()
        steps, drawn = 0, time.monotonic()

        def done(note=""):
            """Counts a step."""
            nonlocal steps, drawn
            # A converter may read its examples twice.
            steps = min(steps + 1, total)
            bar.update(task, completed=steps, note=note)
            if steps == total or time.monotonic() > drawn + _SECONDS_BETWEEN:
                bar.refresh()
                drawn = time.monotonic()

        yield done


def _is_watched():
    return sys.stderr.isatty() or "ipykernel" in sys.modules
