"""Writes a comparison as one HTML file with embedded plots."""

import base64
import html
import io
from pathlib import Path

from tfprune import _keras, plots
from tfprune._analysis.comparison.tables import comparison_tables
from tfprune._base.files import check_target, written_atomically
from tfprune._layers.stored import stores_nonzeros
from tfprune._reports.latency import Latencies

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c1c1c; background: #fff;
       max-width: 1180px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; max-width: 100%; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #ddd; text-align: left;
         vertical-align: top; }
td { overflow-wrap: anywhere; }
td:first-child { min-width: 9rem; }
div.table { overflow-x: auto; }
th { border-bottom: 2px solid #888; vertical-align: bottom; }
td.number, th.number { text-align: right; overflow-wrap: normal; }
tr.total td { border-top: 2px solid #888; font-weight: 600; }
p.note { color: #555; font-size: .9rem; margin: .4rem 0; }
img { max-width: 100%; height: auto; }
"""


def page(comparison, path):
    """Writes the page, and returns its path."""
    check_target(path, "html")
    title = f"{_name(comparison.models[0])}, before and after pruning"
    first, *others = comparison_tables(comparison)
    parts = [f"<h1>{html.escape(title)}</h1>", _table(first)]
    parts += [_picture(name, figure) for name, figure in _pictures(comparison)]
    parts += [_table(grid) for grid in others]
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )
    with written_atomically(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return path


def _name(model):
    return model.stem if isinstance(model, Path) else model.name


def _pictures(comparison):
    """Returns `(title, figure)` of each chart that says something about these models."""
    latencies = Latencies(
        {
            f"{name}, {side}": file.latency
            for name, pair in comparison.files.items()
            for side, file in zip(("before", "after"), pair, strict=True)
            if file.latency
        }
    )
    found = [("Latency of the files", plots.plot_latency(latencies))] if latencies else []
    if not comparison.layers:
        return found
    before, after = comparison.models
    if _narrower(comparison):
        found.append(("Channels of the layers", plots.plot_channels(before, after)))
    if any(comparison.totals["zeros"]):
        sparsity = plots.plot_sparsity({"before": before, "after": after})
        found.append(("Sparsity of the layers", sparsity))
        # The values of a sparse layer have no places in a kernel to draw them by.
        if not any(map(stores_nonzeros, [*_keras.flatten(before), *_keras.flatten(after)])):
            found.append(("Weights before and after", plots.plot_weights(before, after)))
    return found


def _narrower(comparison):
    """Whether a layer that both models have makes fewer channels in the second."""
    pairs = [(change.before, change.after) for change in comparison.layers]
    return any(old and new and old.shape[-1:] != new.shape[-1:] for old, new in pairs)


def _table(grid):
    kinds = [' class="number"' if is_number else "" for _, is_number in grid.columns]
    head = "".join(
        f"<th{kind}>{html.escape(name)}</th>"
        for kind, (name, _) in zip(kinds, grid.columns, strict=True)
    )
    rows = []
    for row in grid.rows:
        cells = "".join(
            f"<td{kind}>{html.escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)
        )
        rows.append(f'<tr class="total">{cells}</tr>' if row[0] == "total" else f"<tr>{cells}</tr>")
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in grid.notes)
    return (
        f'<h2>{html.escape(grid.title)}</h2><div class="table">'
        f"<table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>{notes}"
    )


def _picture(name, figure):
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    encoded = base64.b64encode(data.getvalue()).decode()
    return (
        f"<h2>{html.escape(name)}</h2>"
        f'<img alt="{html.escape(name)}" src="data:image/png;base64,{encoded}">'
    )
