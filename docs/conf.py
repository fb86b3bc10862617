"""Settings of the API reference: `sphinx-build -W docs site`."""

import re
import shutil
import sys
from pathlib import Path

import tfprune

project = "tfprune"
author = "the tfprune authors"
release = tfprune.__version__
sys.path.insert(0, str(Path(__file__).parent / "_ext"))
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "command_line",
    "public_api",
    "repository_links",
    "tutorial_programs",
]
html_theme = "furo"
html_title = f"tfprune {release}"
# Single backticks are code, as in Keras's docstrings.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
autodoc_typehints = "none"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
myst_heading_anchors = 3
# The notebooks are shown with the outputs that are saved in them.
nb_execution_mode = "off"
exclude_patterns = ["_build"]

# Sphinx reads what lies below its own folder alone.
_HERE = Path(__file__).parent
for _folder, _kinds in {"tutorials": (".ipynb",), "benchmarks": (".md", ".png")}.items():
    for _source in (_HERE.parent / _folder).rglob("*"):
        if _source.suffix in _kinds:
            _target = _HERE / _source.relative_to(_HERE.parent)
            _target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(_source, _target)
# Methods that say nothing of their own are Keras's, and documented there.
autodoc_inherit_docstrings = False


def _as_restructured_text(app, what, name, obj, options, lines):
    """Docstrings write code as Markdown does; outside of it, stars and underscores are letters."""
    example = False
    for number, line in enumerate(lines):
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if example:
            continue
        pieces = re.split(r"(`[^`]+`)", line)
        for place, piece in enumerate(pieces):
            if piece.startswith("`"):
                behind = "\\ " if re.match(r"\w", pieces[place + 1]) else ""
                pieces[place] = f"`{piece}`{behind}"
            else:
                pieces[place] = re.sub(r"([*_])(?=\W|$)|(?<!\w)(\*+)", r"\\\1\2", piece)
        lines[number] = "".join(pieces)


def setup(app):
    # Before the extension that reads the sections, at 500.
    app.connect("autodoc-process-docstring", _as_restructured_text, priority=400)
