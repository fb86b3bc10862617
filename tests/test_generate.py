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

ROOT = Path(__file__).parents[1]
REGISTERED = {
    "SCHEDULES": schedules.SCHEDULES,
    "PATTERNS": patterns.PATTERNS,
    "CRITERIA": criteria.CRITERIA,
    "SCOPES": scopes.SCOPES,
    "DISTRIBUTIONS": distributions.DISTRIBUTIONS,
    "DROP_FRACTIONS": drop_fractions.DROP_FRACTIONS,
}
NEW = '''"""A schedule of its own file."""

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

    for variable in ("SCHEDULES", "PATTERNS", "CRITERIA", "SCOPES", "DISTRIBUTIONS"):
        names = list(REGISTERED[variable].by_name())
        assert sorted(getattr(choices, variable)) == sorted(names)
        if REGISTERED[variable].default:
            assert getattr(choices, variable)[0] == names[0]
    assert tuple(table.FORMATS) == choices.FORMATS
    assert choices.QUANTIZED == exporting.QUANTIZED
    assert tuple(files.FORMATS) == choices.COMPARED
    assert choices.COMPARED_BY_DEFAULT == files.BY_DEFAULT


def test_a_new_schedule_is_one_class_in_one_file(tmp_path):
    shutil.copytree(
        ROOT / "tfprune", tmp_path / "tfprune", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "generate", tmp_path / ".ci")
    (tmp_path / "tfprune" / "schedules" / "square_root.py").write_text(NEW)
    code, said = generate(tmp_path, "--check")
    stale = ["tfprune/cli/choices.py", "tfprune/schedules/__init__.py", "tfprune/__init__.py"]
    assert code == 1
    assert sorted(said.splitlines()) == sorted(
        f"{path} is not up to date: run .ci/generate" for path in stale
    )
    code, said = generate(tmp_path)
    assert (code, sorted(said.splitlines())) == (0, sorted(f"wrote {path}" for path in stale))
    for path in stale[1:]:
        text = (tmp_path / path).read_text()
        assert "from tfprune.schedules.square_root import SquareRoot\n" in text
        assert '    "SquareRoot",\n' in text
    assert '    "square_root",\n' in (tmp_path / stale[0]).read_text()
    assert generate(tmp_path, "--check") == (0, "")
    (tmp_path / "tfprune" / "schedules" / "square_root.py").unlink()
    # Though the tree cannot be imported now, the lists mend themselves.
    assert generate(tmp_path)[0] == 0
    for path in stale:
        assert (tmp_path / path).read_text() == (ROOT / path).read_text()


def test_version():
    assert (
        tfprune.__version__ == runpy.run_path(str(ROOT / "tfprune/_base/version.py"))["__version__"]
    )
