"""The API reference: every public name stands in it once."""

import inspect
import re
from pathlib import Path

import tfprune

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {path.stem: path.read_text() for path in (DOCS / "api").glob("*.md")}
NAMED = re.findall(
    r"^\.\. auto(class|function):: tfprune\.([\w.]+)$", "\n".join(PAGES.values()), re.MULTILINE
)


def public_names():
    for name in tfprune.__all__:
        thing = getattr(tfprune, name)
        if not inspect.ismodule(thing):
            yield name, thing
    yield "interop.from_tfmot", tfprune.interop.from_tfmot
    for module in ("criteria", "pruners", "structural"):
        for name in getattr(tfprune, module).__all__:
            thing = getattr(getattr(tfprune, module), name)
            if inspect.isclass(thing) or (inspect.isfunction(thing) and name not in HELPERS):
                yield f"{module}.{name}", thing


# What the library's own parts ask each other.
HELPERS = ("built_in", "get", "no_evidence")


def test_every_public_name_stands_in_it_once():
    places = [(name, getattr(_find(name), "__qualname__", name)) for _, name in NAMED]
    assert len({name for name, _ in places}) == len(places)
    listed = {id(_find(name)) for name, _ in places}
    missing = [name for name, thing in public_names() if id(thing) not in listed]
    assert missing == []


def test_kinds_are_right():
    for kind, name in NAMED:
        assert inspect.isclass(_find(name)) == (kind == "class"), name


def test_every_page_is_reached_from_the_first_one():
    index = (DOCS / "index.md").read_text()
    assert set(re.findall(r"^api/(\w+)$", index, re.MULTILINE)) == set(PAGES)


def _find(dotted):
    thing = tfprune
    for part in dotted.split("."):
        thing = getattr(thing, part)
    return thing
