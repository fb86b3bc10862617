"""The tables of a comparison, as text and as Markdown."""

from dataclasses import dataclass

from rich.table import Table

from tfprune._base.text import as_text


@dataclass(frozen=True)
class Grid:
    """A table of text cells, before it is drawn.

    Attributes:
        title: Title of the table.
        columns: `(name, whether its cells are numbers)` of each column.
        rows: Tuples of cells.
        notes: Lines below it.
    """

    title: str
    columns: tuple
    rows: list
    notes: tuple = ()


def comparison_tables(comparison):
    """Returns the `Grid`s of a comparison: totals, files and layers."""
    grids = [_whole(comparison)]
    if comparison.files:
        grids.append(_files(comparison))
    return [*grids, _layers(comparison)]


def _whole(comparison):
    totals = comparison.totals
    rows = [
        _row("Parameters", totals["parameters"]),
        ("Zeros", *map(_number, totals["zeros"]), ""),
        ("Sparsity", *(_sparsity(totals, side) for side in (0, 1)), ""),
        _row("MACs", totals["macs"]),
        _row("MACs without zeros", totals["effective_macs"]),
    ]
    notes = []
    if comparison.latency is not None:
        old, new = comparison.latency
        rows.append(("Latency", str(old), str(new), _times(old.median, new.median, "faster")))
        notes.append(
            f"Latency: median and middle half of {old.runs} runs of predict_on_batch, "
            f"batch size {old.batch_size}."
        )
    rows += [
        (name, f"{old:.4f}", f"{new:.4f}", f"{new - old:+.4f}")
        for name, (old, new) in comparison.metrics.items()
    ]
    columns = (("", False), ("Before", True), ("After", True), ("Change", True))
    return Grid("Before and after", columns, rows, tuple(notes))


def _row(name, pair):
    old, new = pair
    return name, _number(old), _number(new), _times(old, new, "less")


def _sparsity(totals, side):
    zeros, prunable = totals["zeros"][side], totals["prunable"][side]
    return f"{zeros / prunable if prunable else 0:.2%}"


def _number(value):
    return "?" if value is None else f"{value:,}"


def _times(old, new, word):
    if not old or not new or old == new:
        return ""
    opposite = {"less": "more", "faster": "slower", "smaller": "larger"}[word]
    return f"{old / new:.2f}x {word}" if old > new else f"{new / old:.2f}x {opposite}"


def _files(comparison):
    rows, notes = [], []
    for name, (old, new) in comparison.files.items():
        sizes = [_number(n) for n in (old.raw, new.raw, old.gzipped, new.gzipped)]
        rows.append((name, *sizes, _times(old.gzipped, new.gzipped, "smaller")))
        found = {"before": old.note, "after": new.note}
        notes += [f"{name}, {side}: {note}" for side, note in found.items() if note]
    columns = (
        ("Format", False),
        ("Before", True),
        ("After", True),
        ("Before, gzipped", True),
        ("After, gzipped", True),
        ("Change, gzipped", True),
    )
    return Grid("Bytes in files", columns, rows, tuple(notes))


def _layers(comparison):
    rows = [_layer(change) for change in comparison.layers]
    totals = comparison.totals
    rows.append(
        (
            "total",
            "",
            "",
            _change(*map(_number, totals["parameters"])),
            _change(*map(_number, totals["zeros"])),
            _change(_sparsity(totals, 0), _sparsity(totals, 1)),
            _change(*map(_number, totals["macs"])),
            _change(*map(_number, totals["effective_macs"])),
        )
    )
    columns = (
        ("Layer", False),
        ("Type", False),
        ("Output", True),
        ("Parameters", True),
        ("Zeros", True),
        ("Sparsity", True),
        ("MACs", True),
        ("MACs without zeros", True),
    )
    return Grid("Layers", columns, rows)


def _layer(change):
    sides = (change.before, change.after)
    return (
        change.layer,
        next(cost.type for cost in sides if cost is not None),
        _of_both(sides, lambda cost: "x".join("?" if n is None else str(n) for n in cost.shape)),
        _of_both(sides, lambda cost: _number(cost.parameters)),
        _of_both(sides, lambda cost: _number(cost.zeros) if cost.prunable else ""),
        _of_both(sides, lambda cost: f"{cost.sparsity:.2%}" if cost.prunable else ""),
        _of_both(sides, lambda cost: _number(cost.macs)),
        _of_both(sides, lambda cost: _number(cost.effective_macs)),
    )


def _of_both(sides, text):
    return _change(*("none" if cost is None else text(cost) for cost in sides))


def _change(old, new):
    return old if old == new else f"{old} → {new}"


# -- Text ------------------------------------------------------------------------------------------


def as_printed(grids):
    """Returns grids as text."""
    return as_text(*shown(grids), width=140)


def shown(grids):
    """Returns the renderables of grids for rich: tables, each followed by its notes."""
    return [item for grid in grids for item in (as_rich(grid), *grid.notes)]


def as_rich(grid):
    """Returns a grid as a `rich.table.Table`."""
    table = Table(title=grid.title, title_justify="left")
    for name, is_number in grid.columns:
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in grid.rows:
        if row[0] == "total":
            table.add_section()
        table.add_row(*row)
    return table


def as_markdown(grids):
    """Returns grids as Markdown."""
    parts = []
    for grid in grids:
        lines = [
            _line(name for name, _ in grid.columns),
            _line("---:" if is_number else "---" for _, is_number in grid.columns),
            *map(_line, grid.rows),
        ]
        notes = "".join(f"\n\n{note}" for note in grid.notes)
        parts.append(f"### {grid.title}\n\n" + "\n".join(lines) + notes)
    return "\n\n".join(parts) + "\n"


def _line(cells):
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
