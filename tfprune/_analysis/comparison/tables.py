"""The tables of a comparison, as text and as Markdown."""

from dataclasses import dataclass

from rich.table import Table

from tfprune import _keras
from tfprune._base.text import as_text
from tfprune._layers.stored import stores_nonzeros
from tfprune._reports.latency import conditions


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
    """Returns the `Grid`s of a comparison: what ships, totals, layers, and the machine."""
    grids = [_shipped(comparison)] if comparison.files else []
    if comparison.layers:
        grids += [_whole(comparison), _layers(comparison)]
    return [*grids, _machine(comparison)]


def _shipped(comparison):
    """One row for each file: its size, latency and metrics, and what changed."""
    pairs = comparison.files
    files = [file for pair in pairs.values() for file in pair]
    batches = list(dict.fromkeys(size for file in files for size in file.latency))
    metrics = list(dict.fromkeys(name for file in files for name in file.metrics))
    # Where the table is split, the first column alone says which row is which.
    columns = [("File", False), ("Bytes", True), ("Gzipped", True)]
    columns += [("Change", False)]
    for size in batches:
        columns += [(f"Milliseconds, batch {size}", True), ("Change", False)]
    columns += [(name, True) for name in metrics]
    rows, notes = [], []
    for name, pair in pairs.items():
        for side, file in zip(("before", "after"), pair, strict=True):
            old = pair[0] if side == "after" else None
            row = [f"{name}, {side}", _number(file.raw), _number(file.gzipped)]
            row.append(_smaller(old, file))
            for size in batches:
                row += [_seconds(file, size), _faster(old, file, size)]
            row += [f"{file.metrics[m]:.4f}" if m in file.metrics else "" for m in metrics]
            rows.append(tuple(row))
            notes += [f"{name}, {side}: {file.note}"] if file.note else []
    latencies = [latency for file in files for latency in file.latency.values()]
    if latencies:
        notes.insert(0, f"Latency: {conditions(latencies[0])}, each file in its own runtime.")
    return Grid("The files that ship", tuple(columns), rows, (*notes, *_slower(pairs)))


def _smaller(old, new):
    if old is None or not old.raw or not new.raw:
        return ""
    # Zeros shrink the compressed download; other changes shrink the file itself.
    if old.raw != new.raw:
        return _times(old.raw, new.raw, "smaller")
    change = _times(old.gzipped, new.gzipped, "smaller")
    return f"{change} gzipped" if change else ""


def _seconds(file, size):
    if size not in file.latency:
        return ""
    return str(file.latency[size]).replace(" ms", "")


def _faster(old, new, size):
    if old is None or size not in old.latency or size not in new.latency:
        return ""
    return _quicker(old.latency[size], new.latency[size])


def _quicker(old, new):
    """What became of a latency; nothing is claimed where the quartiles overlap."""
    if old.low < new.high and new.low < old.high:
        return "no clear change"
    return _times(old.median, new.median, "faster")


def _slower(pairs):
    """Notes on files that quantization has made slower than the plain file of their runtime."""
    notes = []
    for name, pair in pairs.items():
        plain = pairs.get(name.split()[-1])
        if plain is None or plain is pair or name.split()[0] not in _QUANTIZED:
            continue
        for side, file, other in zip(("before", "after"), pair, plain, strict=True):
            for size in sorted(file.latency.keys() & other.latency.keys()):
                ratio = file.latency[size].median / other.latency[size].median
                if ratio > 1.05:
                    notes.append(
                        f"{name}, {side}: SLOWER than {name.split()[-1]} in float, "
                        f"{ratio:.2f} times as long at batch size {size}. It saves bytes only."
                    )
    return notes


_QUANTIZED = ("dynamic", "float16", "int8")


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
        rows.append(("Latency in Keras", str(old), str(new), _quicker(old, new)))
        notes.append(
            f"Latency: {conditions(old)} of predict_on_batch, batch size {old.batch_size}."
        )
    rows += [
        (name, f"{old:.4f}", f"{new:.4f}", f"{new - old:+.4f}")
        for name, (old, new) in comparison.metrics.items()
    ]
    columns = (("", False), ("Before", True), ("After", True), ("Change", True))
    return Grid("Before and after", columns, rows, tuple(notes))


def _machine(comparison):
    threads = "as many as the runtime takes" if comparison.threads is None else comparison.threads
    rows = [("threads", str(threads)), *comparison.machine.items()]
    return Grid("Measured on", (("", False), ("", False)), rows)


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
    ratio = f"{max(old, new) / min(old, new):.2f}"
    return "" if ratio == "1.00" else f"{ratio}x {word if old > new else opposite}"


def _layers(comparison):
    rows = [_layer(change) for change in comparison.layers]
    totals = comparison.totals
    rows.append(
        (
            "total",
            "",
            "",
            _change(*map(_number, totals["parameters"])),
            _change(*map(_number, totals["macs"])),
            _change(*map(_number, totals["zeros"])),
            _change(_sparsity(totals, 0), _sparsity(totals, 1)),
            _change(*map(_number, totals["effective_macs"])),
        )
    )
    columns = (
        ("Layer", False),
        ("Type", False),
        ("Output", True),
        ("Parameters", True),
        ("MACs", True),
        ("Zeros", True),
        ("Sparsity", True),
        ("MACs without zeros", True),
    )
    if not any(totals["zeros"]):
        # Without zeros, the last three columns say nothing.
        return Grid("Layers", columns[:5], [row[:5] for row in rows])
    return Grid("Layers", columns, rows, tuple(_not_stored(comparison)))


def _not_stored(comparison):
    """Yields a note for each side with layers that store no zeros."""
    for side, model in zip(("before", "after"), comparison.models, strict=True):
        number = sum(map(stores_nonzeros, _keras.flatten(model)))
        if number:
            plural = "" if number == 1 else "s"
            yield f"{side}: {number} sparse layer{plural}, whose zeros count but are not stored."


def _layer(change):
    sides = (change.before, change.after)
    return (
        change.layer,
        " → ".join(dict.fromkeys(cost.type for cost in sides if cost is not None)),
        _of_both(sides, lambda cost: "x".join("?" if n is None else str(n) for n in cost.shape)),
        _of_both(sides, lambda cost: _number(cost.parameters)),
        _of_both(sides, lambda cost: _number(cost.macs)),
        _of_both(sides, lambda cost: _number(cost.zeros) if cost.prunable else ""),
        _of_both(sides, lambda cost: f"{cost.sparsity:.2%}" if cost.prunable else ""),
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
