"""Tables as text."""

import io

from rich.console import Console


def as_text(*shown, width=110):
    """Returns what rich would print, as text.

    A notebook is no reason to show it instead: `str()` and `print` have to work there too.
    """
    text = io.StringIO()
    console = Console(file=text, width=width, color_system=None, force_jupyter=False)
    for item in shown:
        console.print(item, highlight=False, markup=False)
    return text.getvalue()
