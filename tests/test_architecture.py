"""The house: levels of files, what may be touched where, public names, docstring examples."""

import ast
import dataclasses
import doctest
import functools
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tfprune

ROOT = Path(tfprune.__file__).parent
LEVELS = [
    {"_base"},
    # Two files of plots/ draw what plain parts are, and these bring them in.
    {"_keras", "plots.drawing", "plots.curves"},
    {"schedules", "patterns", "criteria", "masks", "distributions", "scopes", "regularizers"}
    | {"drop_fractions"}
    | {"_formats"},
    {"_layers"},
    {"_wrapping"},
    {"_channels"},
    {"_updates"},
    {"_planning"},
    {"prune"},
    {"callbacks", "_reports"},
    {"structural"},
    {"_deployment", "pruners", "plots", "interop"},
    {"_analysis", "sparse"},
    {"cli", "__main__"},
    {"__init__"},
]
FILES = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in ROOT.rglob("*.py")}
TREES = {name: ast.parse(path.read_text(), str(path)) for name, path in FILES.items()}
each_file = pytest.mark.parametrize("name", sorted(FILES))


def level(name):
    """The level of a file, or else that of the folder that it is in."""
    place = name if any(name in names for names in LEVELS) else name.split(".")[0]
    (found,) = (n for n, names in enumerate(LEVELS) if place in names)
    return found


def as_file(dotted):
    """The file of a dotted name inside tfprune, or the file that defines it."""
    parts = dotted.split(".")[1:]
    for end in range(len(parts), -1, -1):
        for candidate in (".".join(parts[:end]), ".".join([*parts[:end], "__init__"])):
            if candidate in FILES:
                return candidate
    raise LookupError(dotted)


def imports(name):
    """Files of tfprune that a file imports from, inside functions too."""
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"a relative import in {name}")
            dotted = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {as_file(d) for d in dotted if d.split(".")[0] == "tfprune"}
    return found - {name}


# Documented, whatever its name says.
PUBLIC = {"os._exit"}


def private(attribute):
    return attribute.startswith("_") and not attribute.endswith("__")


# -- Levels ----------------------------------------------------------------------------------------


def test_every_file_has_a_level():
    assert {name.split(".")[0] for name in FILES} == {
        place for place in set().union(*LEVELS) if "." not in place
    }
    assert {place for place in set().union(*LEVELS) if "." in place} <= set(FILES)


@each_file
def test_no_file_imports_from_a_higher_level(name):
    assert [other for other in imports(name) if level(other) > level(name)] == []


def test_imports_have_no_circle():
    waiting = {name: imports(name) for name in FILES}
    while free := [name for name, needs in waiting.items() if not needs & set(waiting)]:
        for name in free:
            del waiting[name]
    assert waiting == {}


@pytest.mark.parametrize("name", [name for name in sorted(FILES) if name.startswith("callbacks.")])
def test_callbacks_are_made_of_small_parts(name):
    classes = [node for node in TREES[name].body if isinstance(node, ast.ClassDef)]
    for cls in classes:
        methods = [node for node in cls.body if isinstance(node, ast.FunctionDef)]
        assert len(methods) <= 10, cls.name


# -- Restricted imports and names ------------------------------------------------------------------


@each_file
def test_no_assert(name):
    assert [n.lineno for n in ast.walk(TREES[name]) if isinstance(n, ast.Assert)] == []


def module_level(tree):
    """Statements that run when the file is imported."""
    stack = list(tree.body)
    while stack:
        node = stack.pop()
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield node
            stack.extend(ast.iter_child_nodes(node))


@each_file
def test_module_level_imports_are_light(name):
    modules = set()
    for node in module_level(TREES[name]):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module.split(".")[0])
    known = set(sys.stdlib_module_names) | {"tfprune", "keras", "numpy", "rich"}
    assert modules <= known


@pytest.mark.parametrize("name", [name for name in sorted(FILES) if not name.startswith("plots.")])
def test_only_one_folder_draws(name):
    modules = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module.split(".")[0])
    assert "matplotlib" not in modules


def test_import_brings_no_heavy_module_and_no_legacy_keras():
    code = (
        "import os, sys, keras; before = set(sys.modules); import tfprune; "
        "print(sorted({m.split('.')[0] for m in set(sys.modules) - before}), "
        "'TF_USE_LEGACY_KERAS' in os.environ)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    printed = done.stdout.strip().splitlines()[-1]
    assert "'tfprune'" in printed and printed.endswith(" False")
    for heavy in ("matplotlib", "tensorflow_model_optimization", "tf_keras", "sklearn", "scipy"):
        assert f"'{heavy}'" not in printed


@functools.cache
def own_private_names():
    """`{class: (names of its bases, private names that it defines)}`, and all private names."""
    classes, everywhere = {}, set()
    for name, tree in TREES.items():
        if name.startswith("_keras."):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases = [ast.unparse(base).split(".")[-1] for base in node.bases]
                classes[node.name] = (bases, set(defined_in(node)))
                everywhere |= classes[node.name][1]
        everywhere |= {n for n in defined_in(tree) if private(n)}
    return classes, everywhere


def defined_in(tree):
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if ast.unparse(node.value) == "self":
                yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def closure(name, classes):
    if name not in classes:
        return set()
    bases, names = classes[name]
    return names.union(*(closure(base, classes) for base in bases))


@pytest.mark.parametrize("name", [name for name in sorted(FILES) if not name.startswith("_keras.")])
def test_only_one_folder_touches_keras_internals(name):
    text = FILES[name].read_text()
    assert "keras.src" not in text
    classes, everywhere = own_private_names()
    foreign = []

    def visit(node, allowed):
        if isinstance(node, ast.ClassDef):
            allowed = closure(node.name, classes)
        if (
            isinstance(node, ast.Attribute)
            and private(node.attr)
            and ast.unparse(node) not in PUBLIC
        ):
            owner = ast.unparse(node.value)
            known = allowed if owner in ("self", "cls", "super()") else everywhere
            if node.attr not in known:
                foreign.append(f"{node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            named = node.args[1]
            if isinstance(named, ast.Constant) and private(named.value):
                foreign.append(f"{node.lineno}: {ast.unparse(node)}")
        for child in ast.iter_child_nodes(node):
            visit(child, allowed)

    visit(TREES[name], set())
    assert foreign == []


# -- Public names ----------------------------------------------------------------------------------


@each_file
def test_no_public_function_bears_the_name_of_its_module(name):
    dotted = "tfprune" if name == "__init__" else f"tfprune.{name.removesuffix('.__init__')}"
    module = importlib.import_module(dotted)
    thing = tfprune
    for part in dotted.split(".")[1:]:
        thing = getattr(thing, part)
    # What `import a.b as m` gives.
    assert thing is module
    if not any(map(private, dotted.split("."))):
        own = getattr(module, dotted.rpartition(".")[2], None)
        assert getattr(own, "__module__", None) != dotted


def in_order(names):
    """As ruff sorts `__all__`: constants, classes, others."""
    return sorted(names, key=lambda n: (not n.isupper(), not n[0].isupper(), n))


def test_all_is_sorted_and_complete():
    assert tfprune.__all__ == in_order(set(tfprune.__all__))
    imported = {
        alias.asname or alias.name
        for node in TREES["__init__"].body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(tfprune.__all__) == {name for name in imported if not name.startswith("_")}


def test_documents_name_what_there_is():
    project = ROOT.parent
    texts = [project / "README.md", *(project / "docs").glob("*.md")]
    texts += (project / "docs" / "guide").glob("*.md")
    text = "\n".join(path.read_text() for path in texts)
    wrong = []
    for dotted in sorted(set(re.findall(r"\btfprune((?:\.[A-Za-z_]\w*)+)", text))):
        thing = tfprune
        for part in dotted.strip(".").split("."):
            if part == "py":
                break
            if not hasattr(thing, part):
                wrong.append(f"tfprune{dotted}")
                break
            thing = getattr(thing, part)
    assert wrong == []
    listed = re.search(r"^#+ API\n(.*?)(?=^#|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    assert listed
    assert set(re.findall(r"`(\w+)`", listed[1])) == set(tfprune.__all__)


@pytest.mark.parametrize("name", tfprune.__all__)
def test_public_names_are_documented(name):
    assert inspect.getdoc(getattr(tfprune, name))


# -- Docstring examples ----------------------------------------------------------------------------


def examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    names = {"tfprune": tfprune, "keras": keras, "np": np, "dataclasses": dataclasses}
    for file in sorted(FILES):
        dotted = "tfprune" if file == "__init__" else f"tfprune.{file.removesuffix('.__init__')}"
        module = importlib.import_module(dotted)
        for test in finder.find(module, dotted, globs=dict(names)):
            if test.examples:
                yield pytest.param(test, id=test.name)


@pytest.mark.parametrize("example", list(examples()))
def test_docstring_example(example, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    output = []
    doctest.DocTestRunner(verbose=False).run(example, out=output.append)
    assert "".join(output) == ""
