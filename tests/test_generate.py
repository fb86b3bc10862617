"""The lists of parts that `.ci/generate` writes, against the registered parts and the files."""

import importlib
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tfprune
from tfprune import criteria, distributions, drop_fractions, patterns, schedules, scopes
from tfprune.cli import choices
from tfprune.pruners.search.candidate_search import SEARCHES

ROOT = Path(__file__).parents[1]
REGISTERED = {
    "SCHEDULES": schedules.SCHEDULES,
    "PATTERNS": patterns.PATTERNS,
    "CRITERIA": criteria.CRITERIA,
    "SCOPES": scopes.SCOPES,
    "DISTRIBUTIONS": distributions.DISTRIBUTIONS,
    "DROP_FRACTIONS": drop_fractions.DROP_FRACTIONS,
    "SEARCHES": SEARCHES,
}
NEW_SCHEDULE = '''"""A schedule of its own file."""

from dataclasses import dataclass

from tfprune.schedules.base import SCHEDULES
from tfprune.schedules.ramps import Ramp


@SCHEDULES.part()
@dataclass(frozen=True)
class SquareRoot(Ramp):
    """Fast at first."""

    frequency: int = 100

    def curve(self, progress):
        return self.between(progress**0.5)
'''
NEW_SEARCH = '''"""A search of its own file."""

from dataclasses import dataclass

from tfprune.pruners.search.base import described
from tfprune.pruners.search.candidate_search import SEARCHES, CandidateSearch


@SEARCHES.part("greedy")
@described
@dataclass(kw_only=True, eq=False, repr=False)
class GreedySearch(CandidateSearch):
    """Takes all from the first layer."""

    def _search(self, session):
        return [session.allocator.most[0], *session.allocator.now[1:]]
'''
NEW_PLOT = '''"""A plot of its own file."""


def plot_nothing(path=None):
    """Draws nothing."""
'''
NEW_PARSER = '''"""The parser of `tfprune wait`."""


def add(commands, shared):
    commands.add_parser("wait", parents=[shared]).set_defaults(command="tfprune.cli.wait")
'''
CHOICES = "tfprune/cli/choices.py"
NEW = {
    "schedule": (
        "tfprune/schedules/square_root.py",
        NEW_SCHEDULE,
        {
            CHOICES: ['    "square_root",'],
            **{
                f"tfprune/{package}__init__.py": [
                    "from tfprune.schedules.square_root import SquareRoot",
                    '    "SquareRoot",',
                ]
                for package in ("", "schedules/")
            },
        },
    ),
    "search": (
        "tfprune/pruners/search/greedy.py",
        NEW_SEARCH,
        {
            CHOICES: ['SEARCHES = ("sensitivity", "anneal", "greedy", "netadapt")'],
            **{
                f"tfprune/pruners/{package}__init__.py": [
                    "from tfprune.pruners.search.greedy import GreedySearch",
                    '    "GreedySearch",',
                ]
                for package in ("", "search/")
            },
        },
    ),
    "plot": (
        "tfprune/plots/nothing.py",
        NEW_PLOT,
        {
            f"tfprune/{package}__init__.py": [
                "from tfprune.plots.nothing import plot_nothing",
                '    "plot_nothing",',
            ]
            for package in ("", "plots/")
        },
    ),
    "subcommand": ("tfprune/cli/parsers/wait.py", NEW_PARSER, {CHOICES: ['    "wait",']}),
}


def generate(folder, *options):
    """Runs the generator of a tree, without Keras, and returns its exit code and its words."""
    done = subprocess.run(
        # `-S` leaves out what is installed: the generator reads files and imports nothing.
        [sys.executable, "-S", str(folder / ".ci" / "generate"), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_files_are_up_to_date():
    code, said = generate(ROOT, "--check")
    assert (code, said) == (0, "")


@pytest.mark.parametrize("variable", REGISTERED)
def test_what_is_read_from_the_files_is_what_is_registered(variable):
    kinds, parts = runpy.run_path(str(ROOT / ".ci" / "generate"))["found_parts"]()
    assert set(kinds) == set(REGISTERED)
    registry = REGISTERED[variable]
    kind = kinds[variable]
    assert (kind.exported, kind.default) == (registry.exported, registry.default)
    read = {name: (part.module, part.cls) for part in parts[variable] for name in part.names}
    known = {name: (cls.__module__, cls.__name__) for name, cls in registry.by_name().items()}
    assert read == known
    for cls in registry.classes():
        exporter = importlib.import_module(registry.exported)
        assert getattr(exporter, cls.__name__) is cls
        listed = getattr(exporter, "__all__", [cls.__name__])
        assert cls.__name__ in listed


def test_choices_are_what_there_is():
    from tfprune._analysis.comparison import files
    from tfprune._deployment import exporting
    from tfprune._formats import table

    for variable in ("SCHEDULES", "PATTERNS", "CRITERIA", "SCOPES", "DISTRIBUTIONS", "SEARCHES"):
        names = list(REGISTERED[variable].by_name())
        assert sorted(getattr(choices, variable)) == sorted(names)
        if REGISTERED[variable].default:
            assert getattr(choices, variable)[0] == names[0]
    assert tuple(table.FORMATS) == choices.FORMATS
    assert choices.QUANTIZED == exporting.QUANTIZED
    assert tuple(files.FORMATS) == choices.COMPARED
    assert choices.COMPARED_BY_DEFAULT == files.BY_DEFAULT


def test_every_plot_and_every_subcommand_is_listed():
    plots = [path.stem for path in (ROOT / "tfprune" / "plots").glob("*.py")]
    defined = {
        name
        for module in (importlib.import_module(f"tfprune.plots.{stem}") for stem in plots)
        for name, thing in vars(module).items()
        if name.startswith("plot_") and thing.__module__ == module.__name__
    }
    assert defined == {name for name in tfprune.__all__ if name.startswith("plot_")}
    files = {path.stem for path in (ROOT / "tfprune" / "cli" / "parsers").glob("*.py")}
    assert set(choices.COMMANDS) == files - {"__init__", "options"}
    for name in choices.COMMANDS:
        assert callable(importlib.import_module(f"tfprune.cli.{name}").run)


@pytest.mark.parametrize("kind", NEW)
def test_a_new_part_is_one_file(kind, tmp_path):
    shutil.copytree(
        ROOT / "tfprune", tmp_path / "tfprune", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "generate", tmp_path / ".ci")
    file, text, lines = NEW[kind]
    (tmp_path / file).write_text(text)
    code, said = generate(tmp_path, "--check")
    assert code == 1
    assert sorted(said.splitlines()) == sorted(
        f"{path} is not up to date: run .ci/generate" for path in lines
    )
    code, said = generate(tmp_path)
    assert (code, sorted(said.splitlines())) == (0, sorted(f"wrote {path}" for path in lines))
    for path, expected in lines.items():
        assert set(expected) <= set((tmp_path / path).read_text().splitlines())
    assert generate(tmp_path, "--check") == (0, "")
    (tmp_path / file).unlink()
    # Though the tree cannot be imported now, the lists mend themselves.
    assert generate(tmp_path)[0] == 0
    for path in lines:
        assert (tmp_path / path).read_text() == (ROOT / path).read_text()


def test_version():
    assert (
        tfprune.__version__ == runpy.run_path(str(ROOT / "tfprune/_base/version.py"))["__version__"]
    )
