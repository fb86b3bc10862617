"""Tables as text: they fit, and every word stays in one piece."""

import io
import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from tfprune._base.text import as_text, fitted, show

ROWS = [
    ("stem/conv", "Conv2D", "864", "778", "90.05%", "pruned"),
    ("stage_1/block_2/expand_depthwise", "DepthwiseConv2D", "1,296", "", "", "nothing to prune"),
    ("head", "Dense", "1,281,000", "1,152,900", "90.00%", "pruned, frozen"),
]
HEADERS = ("Layer", "Type", "Parameters", "Zeros", "Sparsity", "Status")


def table_of(headers, rows):
    table = Table(title="Sparsity")
    for header in headers:
        table.add_column(header)
    for row in rows:
        table.add_row(*row)
    return table


def printed(table, width):
    text = io.StringIO()
    show(Console(file=text, width=width, color_system=None), table)
    return text.getvalue()


def pieces(cells):
    """What is not to be broken: words, and parts of paths."""
    return {piece for cell in cells for piece in re.findall(r"[^\s/]+", cell)}


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_a_report_fits(width):
    text = printed(table_of(HEADERS, ROWS), width)
    assert max(map(len, text.splitlines())) <= width
    assert pieces(HEADERS) | pieces(sum(ROWS, ())) <= pieces(text.splitlines())


def test_wide_enough_is_as_rich_prints_it():
    table = table_of(HEADERS, ROWS)
    console = Console(file=io.StringIO(), width=200, color_system=None)
    console.print(table, highlight=False)
    assert as_text(table, width=200) == console.file.getvalue()


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stdout", "columns", "expected"),
    [(Terminal, "80", 80), (Terminal, "200", 110), (Terminal, "5", 40), (io.StringIO, "80", 110)],
)
def test_text_is_no_wider_than_the_terminal(monkeypatch, stdout, columns, expected):
    monkeypatch.setattr(sys, "stdout", stdout())
    monkeypatch.setenv("COLUMNS", columns)
    long = ("a/" * 100, "Conv2D", "1,296", "", "", "nothing to prune")
    text = as_text(table_of(HEADERS, [*ROWS, long]))
    assert max(map(len, text.splitlines())) <= expected
    if expected > 40:
        assert max(map(len, text.splitlines())) > expected - 10


def test_columns_that_do_not_fit_follow_below_with_the_names_of_the_rows():
    first, second = fitted(table_of(HEADERS, ROWS), 60)
    assert {table.columns[0].header for table in (first, second)} == {"Layer"}
    shown = [c.header for t in (first, second) for c in t.columns[1:]]
    assert shown == list(HEADERS[1:])
    assert (first.title, second.title) == ("Sparsity", None)


def test_lines_end_at_spaces_and_after_slashes():
    (table,) = fitted(table_of(("Layer", "Why"), [("a/bb/ccc", "one two three")]), 16)
    layer, why = (next(iter(column.cells)) for column in table.columns)
    assert layer.replace("\n", "") == "a/bb/ccc"
    assert why.replace("\n", " ") == "one two three"
    assert max(map(len, printed(table, 16).splitlines())) <= 16


@pytest.mark.parametrize("name", ["encoder_" * 12 + "conv", "x" * 95])
def test_a_name_that_no_line_holds_is_cut(name):
    rows = [(name, "12.5%", "dense: slower"), ("head", "0.0%", "sparse: faster")]
    table = table_of(("Layer", "Zeros", "Result"), rows)
    (shown,) = (next(iter(part.columns[0].cells)) for part in fitted(table, 80)[:1])
    lines = shown.split("\n")
    assert "".join(lines) == name and len(lines) > 1
    assert all(line.endswith("_") for line in lines[:-1]) or "_" not in name
    text = printed(table, 80)
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    assert pieces(("Layer", "Zeros", "Result", *rows[1])) <= pieces(text.splitlines())


def test_sections_stay():
    table = table_of(("Layer", "Zeros"), [("a", "1")])
    table.add_section()
    table.add_row("total", "1")
    assert as_text(table).count("├") == 1


words = st.text("abc123%,.", min_size=1, max_size=9)
cells = st.lists(words, max_size=4).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 6).flatmap(
        lambda n: st.lists(st.lists(cells, min_size=n, max_size=n), min_size=1, max_size=4)
    ),
    st.integers(26, 90),
)
def test_every_table_fits_and_breaks_no_word(rows, width):
    headers = [f"Column{number}" for number in range(len(rows[0]))]
    text = printed(table_of(headers, rows), width)
    # Two columns of the longest words take 9 + 9 + 7 letters.
    assert max(map(len, text.splitlines())) <= width
    found = pieces(text.splitlines())
    assert pieces(cell for row in rows for cell in row) <= found
