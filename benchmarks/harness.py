"""Shared by all benchmarks: interleaved timing, one table style, JSON results."""

import argparse
import json
import pathlib
import platform
import statistics
import time
from importlib.metadata import PackageNotFoundError, version

from rich.console import Console
from rich.table import Table

RESULTS = pathlib.Path(__file__).with_name("results")


def arguments(description):
    """Parses the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of all sides in turn")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS, help="folder for JSON")
    return parser


def interleave(sides, rounds):
    """Runs all sides in turn, `rounds` times, and returns the seconds of each.

    Args:
        sides: `{name: function}`, or `{name: (setup, function)}`; a setup is not timed.
        rounds: Number of rounds; one more is run first and thrown away.
    """
    seconds = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            setup, function = side if isinstance(side, tuple) else (None, side)
            if setup is not None:
                setup()
            start = time.perf_counter()
            function()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(values):
    """Median and quartiles of some numbers."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return {"median": middle, "low": low, "high": high}


def ratios(numerators, denominators):
    """Summary of the ratios round by round, which noise common to both sides cancels out of."""
    return summary([a / b for a, b in zip(numerators, denominators, strict=True)])


def milliseconds(seconds):
    """A summary of seconds, as text in milliseconds."""
    found = summary([1000 * value for value in seconds])
    return f"{found['median']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def show(title, columns, rows):
    """Prints a table."""
    table = Table(title=title)
    for position, name in enumerate(columns):
        table.add_column(name, justify="left" if position == 0 else "right")
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=110).print(table)


def write(name, folder, result):
    """Writes a result as JSON, with the versions that it was made with."""
    import os

    packages = ("keras", "keras-hub", "tensorflow", "numpy", "tensorflow-model-optimization")
    result = {
        **result,
        "machine": {
            "processor": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            **{package: found for package in packages if (found := _version(package))},
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def _version(package):
    """The version of a package; `None` if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
