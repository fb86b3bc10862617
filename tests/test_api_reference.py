"""The API reference: it has every public object once, and every command with its options."""

import importlib.util
import inspect
import re
from pathlib import Path

import pytest

import tfprune
from tfprune.cli.choices import COMMANDS

DOCS = Path(__file__).parents[1] / "docs"


def extension(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / "_ext" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PUBLIC_API = extension("public_api")
PAGES = {path.stem: PUBLIC_API.expanded(path.read_text()) for path in (DOCS / "api").glob("*.md")}
NAMED = re.findall(
    r"^\.\. auto(class|function):: tfprune\.([\w.]+)$", "\n".join(PAGES.values()), re.MULTILINE
)
PACKAGES = [name for name in tfprune.__all__ if inspect.ismodule(getattr(tfprune, name))]


def public_names():
    for name in tfprune.__all__:
        if name not in PACKAGES:
            yield name, getattr(tfprune, name)
    for package in PACKAGES:
        for name, thing in PUBLIC_API.public_objects(f"tfprune.{package}").items():
            yield f"{package}.{name}", thing


def test_it_has_every_public_object_once():
    names = [name for _, name in NAMED]
    assert len(set(names)) == len(names)
    places = [id(_find(name)) for name in names]
    assert len(set(places)) == len(places)
    missing = [name for name, thing in public_names() if id(thing) not in places]
    assert missing == []


@pytest.mark.parametrize("name", [name for _, name in NAMED])
def test_each_argument_has_a_line_of_its_own(name):
    text = inspect.getdoc(_find(name)) or ""
    arguments = text.partition("\nArgs:\n")[2].partition("\n\n")[0]
    begun = re.findall(r"^    (\w+): ", arguments, re.MULTILINE)
    inside = set(inspect.signature(_find(name)).parameters) - set(begun)
    assert [one for one in inside if re.search(rf"\S {one}: ", arguments)] == []
    assert not re.findall(r"^ *{\w+}", text, re.MULTILINE)


def test_the_packages_are_searched():
    """So that the test above cannot pass by finding nothing."""
    names = dict(public_names())
    for name in ("schedules.Cosine", "criteria.FPGM", "drop_fractions.CosineDrop", "scopes.Scope"):
        assert name in names


def test_kinds_are_right():
    for kind, name in NAMED:
        assert inspect.isclass(_find(name)) == (kind == "class"), name


def test_a_name_is_given_by_its_shortest_path():
    assert PUBLIC_API.public_name("tfprune.schedules", "Cosine") == "tfprune.Cosine"
    assert PUBLIC_API.public_name("tfprune.criteria", "FPGM") == "tfprune.criteria.FPGM"


def test_every_page_is_reached_from_the_first_one():
    index = (DOCS / "index.md").read_text()
    assert set(re.findall(r"^api/(\w+)$", index, re.MULTILINE)) == set(PAGES)


@pytest.fixture(scope="module")
def command_line():
    return extension("command_line")


def test_the_reference_has_every_command(command_line):
    text = command_line.reference(command_line.parser())
    headings = re.findall(r"^## (tfprune .*)$", text, re.MULTILINE)
    # A command with actions has a section for each of these instead.
    assert {heading.split()[1] for heading in headings} == set(COMMANDS)
    assert len(headings) == len(COMMANDS) and "tfprune schedule plot" in headings
    assert "130  interrupted" in text


def test_the_reference_has_every_option(command_line):
    parser = command_line.parser()
    text = command_line.reference(parser)
    for command, _ in command_line._commands(parser):
        section = text.split(f"## {command.prog}\n")[1].split("\n## ")[0]
        for action in command._actions:
            for option in set(action.option_strings) - {"-h", "--help"}:
                row = rf"^\| `[^`]*{option}(,| |`)"
                assert re.search(row, section, re.MULTILINE), option
    assert re.search(r"^\| `--epochs N` \|.*\| `3` \|$", text, re.MULTILINE)


@pytest.mark.parametrize("name", extension("tutorial_programs").SHOWN)
def test_programs_have_a_page(name):
    text = extension("tutorial_programs").page(name)
    assert text.startswith("# ") and f"python tutorials/{name}.py" in text
    assert f"literalinclude}} ../../tutorials/{name}.py" in text


def _find(dotted):
    thing = tfprune
    for part in dotted.split("."):
        thing = getattr(thing, part)
    return thing
