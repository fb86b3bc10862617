"""API pages that list the public objects of a package by themselves.

A line `<!-- public objects of tfprune.schedules -->` becomes one entry for each public class and
function of that package, so that a new schedule needs no edit here. Objects that a page names
itself, in an `{eval-rst}` block, are written there and nowhere else.
"""

import importlib
import inspect
import re

import tfprune

MARK = re.compile(r"^<!-- public objects of (tfprune\.\w+) -->$", re.MULTILINE)
ENTRY = "```{{eval-rst}}\n.. auto{kind}:: {name}\n{members}```"


def public_objects(package):
    """Classes and functions of a public package: its `__all__`, or what its files define."""
    module = importlib.import_module(package)
    names = getattr(module, "__all__", None) or [
        name
        for name, thing in vars(module).items()
        if not name.startswith("_") and getattr(thing, "__module__", "").startswith(package)
    ]
    found = {name: getattr(module, name) for name in names}
    return {n: thing for n, thing in found.items() if inspect.isclass(thing) or callable(thing)}


def public_name(package, name):
    """The shortest path to an object: `tfprune.Cosine` for `tfprune.schedules.Cosine`."""
    thing = getattr(importlib.import_module(package), name)
    return f"tfprune.{name}" if getattr(tfprune, name, None) is thing else f"{package}.{name}"


def expanded(text):
    """The text of a page with its marks replaced."""
    return MARK.sub(lambda mark: "\n\n".join(_entries(mark[1])), text)


def _entries(package):
    for name, thing in public_objects(package).items():
        if inspect.isclass(thing):
            kind, members = "class", "   :members:\n"
        else:
            kind, members = "function", ""
        yield ENTRY.format(kind=kind, name=public_name(package, name), members=members)


def _read(app, document, source):
    source[0] = expanded(source[0])


def setup(app):
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}
