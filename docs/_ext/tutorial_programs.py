"""Pages for the tutorials that are programs; the notebooks are pages already.

A page has the program's own description, its output and pictures where `docs/pictures/tutorials`
holds them, and the program itself.
"""

import ast
from pathlib import Path

DOCS = Path(__file__).parents[1]
PROGRAMS = DOCS.parent / "tutorials"
SHOWN = (
    "choosing_a_criterion_and_scope",
    "dynamic_sparse_training",
    "many_devices",
    "pruning_a_language_model",
    "shrinking_filters",
)


def page(name):
    """The page of a program, as Markdown for the folder docs/tutorials."""
    text = (PROGRAMS / f"{name}.py").read_text()
    title, description = ast.get_docstring(ast.parse(text)).split("\n\n", 1)
    description, _, usage = description.rpartition("\n\n")
    results = DOCS / "pictures" / "tutorials"
    parts = [f"# {title.rstrip('.')}", description, f"```bash\n{usage}\n```"]
    pictures = sorted(results.glob(f"{name}*.png"))
    printed = results / f"{name}.txt"
    if printed.exists():
        parts += ["## Output", f"```text\n{printed.read_text().rstrip()}\n```"]
        parts += [
            f"![{_caption(picture, name)}](../pictures/tutorials/{picture.name})"
            for picture in pictures
        ]
    shared = ["data_and_model.py"] if "data_and_model" in text else []
    for file in (f"{name}.py", *shared):
        parts += [f"## {file}", f"```{{literalinclude}} ../../tutorials/{file}\n```"]
    return "\n\n".join(parts) + "\n"


def _caption(picture, name):
    return picture.stem.removeprefix(name).strip("_").replace("_", " ")


def _write(app):
    folder = DOCS / "tutorials"
    folder.mkdir(exist_ok=True)
    for name in SHOWN:
        target, text = folder / f"{name}.md", page(name)
        # A file that is written again would be read again by each build.
        if not target.exists() or target.read_text() != text:
            target.write_text(text)


def setup(app):
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True}
