"""Tables as text that fits a width without breaking words."""

import io
import re
import shutil
import sys

from rich.console import Console
from rich.table import Table

# Below this, names and numbers would no longer stand side by side.
_NARROWEST = 40
# A line holds at least this much of a name.
_SHORTEST = 10


def as_text(*shown, width=110):
    """Returns rich's output as a string, at most `width` characters wide, and fit for a terminal.

    In a notebook, rich would display its output; `str()` and `print` need the text there too.
    """
    text = io.StringIO()
    width = max(_NARROWEST, min(width, _terminal_width(width)))
    console = Console(file=text, width=width, color_system=None, force_jupyter=False)
    show(console, *shown, markup=False)
    return text.getvalue()


def _terminal_width(otherwise):
    # The text of a file or a pipe is the same everywhere, whatever COLUMNS says.
    if not getattr(sys.stdout, "isatty", lambda: False)():
        return otherwise
    return shutil.get_terminal_size((otherwise, 24)).columns


def show(console, *shown, **how):
    """Prints texts and tables on a rich console, and splits tables that are too wide."""
    for item in shown:
        parts = fitted(item, console.width) if isinstance(item, Table) else [item]
        for part in parts:
            console.print(part, highlight=False, **how)


def fitted(table, width):
    """Splits a table into tables of at most `width` characters.

    Lines break at spaces and after slashes, never within a word, unless the word alone is too long
    for a line: then after an underscore, if it has one. Columns that do not fit move to a further
    table, which repeats the names of the rows.

    Args:
        table: A `rich.table.Table` of texts, whose first column names the rows.
        width: Maximum number of characters in a line.

    Returns:
        List of `rich.table.Table`.
    """
    columns = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    least = [_least(cells, width // 2) for cells in columns]
    # As much as leaves room for any one of the other columns.
    longest = max(_SHORTEST, width - max(least[1:], default=0) - 7)
    least[0] = _least(columns[0], longest)
    most = [max(map(len, cells)) for cells in columns]
    found: list = []
    rest = list(range(1, len(columns)))
    while rest or not found:
        part = [0]
        while rest and (len(part) == 1 or _total(least, [*part, rest[0]]) <= width):
            part.append(rest.pop(0))
        found.append(_part(table, columns, part, _widths(part, least, most, width)))
        found[-1].title = None if len(found) > 1 else table.title
    return found


def _least(cells, longest):
    """Width that a column needs at least, if words of more than `longest` characters are cut."""
    return max(len(piece.rstrip()) for cell in cells for piece in [*_pieces(cell, longest), ""])


def _total(widths, part):
    """Characters in a line: each column adds a space on both sides and a line after it."""
    return sum(widths[place] + 3 for place in part) + 1


def _widths(part, least, most, width):
    """Returns the width of each column of a part; the widest columns are narrowed first."""
    found = {place: most[place] for place in part}
    while _total(found, part) > width:
        wide = [place for place in part if found[place] > least[place]]
        if not wide:
            break
        found[max(wide, key=found.__getitem__)] -= 1
    return found


def _part(table, columns, part, widths):
    made = Table(title=table.title, title_justify=table.title_justify, box=table.box)
    for place in part:
        header = _in_lines(columns[place][0], widths[place])
        made.add_column(header, justify=table.columns[place].justify, no_wrap=True)
    for number, row in enumerate(table.rows, start=1):
        cells = [_in_lines(columns[place][number], widths[place]) for place in part]
        made.add_row(*cells, end_section=row.end_section)
    return made


def _pieces(text, longest):
    """Splits a text into unbreakable pieces, each with the spaces or the slash that follow it."""
    found = re.findall(r"[^\s/]*/|[^\s/]+\s*|\s+", text)
    return [part for piece in found for part in _cut(piece, longest)]


def _cut(piece, longest):
    """Cuts a piece of more than `longest` characters, after an underscore if it can."""
    while len(piece.rstrip()) > longest:
        place = piece.rfind("_", 0, longest) + 1 or longest
        yield piece[:place]
        piece = piece[place:]
    yield piece


def _in_lines(text, width):
    """Breaks a text at spaces and slashes, so that no line exceeds `width` characters."""
    if len(text) <= width:
        return text
    lines = [""]
    for piece in _pieces(text, width):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)
