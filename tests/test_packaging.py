"""What is installed: declared dependencies against the imports, documents against the files."""

import ast
import configparser
import re
import sys
from pathlib import Path

import pytest

import tfprune

ROOT = Path(__file__).parents[1]
# Where the name to import differs from the name to install.
PACKAGES = {
    "ai_edge_litert": "ai-edge-litert",
    "keras_hub": "keras-hub",
    "sklearn": "scikit-learn",
    "tensorflow_model_optimization": "tensorflow-model-optimization",
}
# What every TensorFlow or Keras brings along.
BROUGHT = {"h5py", "ml_dtypes"}
# The user chooses the backend; each has its own extra.
CHOSEN = {"tensorflow", "jax", "torch"}


@pytest.fixture(scope="module")
def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def requirements(text):
    return {re.split(r"[<>=!~\[ ]", line)[0] for line in text.split("\n") if line.strip()}


def imports(folder, at_import_only=False):
    """Packages that the files of a folder import from outside, with the files that do."""
    files = list((ROOT / folder).rglob("*.py"))
    own = {"tfprune", *(path.stem for path in files), *(path.parent.name for path in files)}
    found = {}
    for path in (ROOT / folder).rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in tree.body if at_import_only else ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            else:
                continue
            for top in {name.split(".")[0] for name in names} - own - sys.stdlib_module_names:
                found.setdefault(PACKAGES.get(top, top), set()).add(path.name)
    return found


@pytest.mark.parametrize(
    ("folder", "extras", "at_import_only"),
    [
        ("tfprune", [], True),
        ("tfprune", [*CHOSEN, "litert", "onnx", "plots", "tfmot"], False),
        ("tutorials", ["demo", "hub"], False),
        ("tests", ["test", "hub"], False),
        ("benchmarks", ["test", "hub"], False),
    ],
)
def test_what_is_imported_is_declared(setup, folder, extras, at_import_only):
    declared = requirements(setup["options"]["install_requires"])
    for extra in extras:
        declared |= requirements(setup["options.extras_require"][extra])
    found = imports(folder, at_import_only)
    assert found
    undeclared = {name: files for name, files in found.items() if name not in declared}
    allowed = set() if folder in ("tfprune", "tutorials") else BROUGHT | {"jax", "torch", "fuzz"}
    # The user of one benchmark installs it apart.
    allowed |= {"openvino"} if folder == "benchmarks" else set()
    assert set(undeclared) <= allowed


def test_nothing_is_declared_in_vain(setup):
    declared = requirements(setup["options"]["install_requires"])
    assert declared <= set(imports("tfprune"))


def test_extras(setup):
    extras = {
        name: requirements(setup["options.extras_require"][name])
        for name in setup["options.extras_require"]
    }
    assert set(extras) == CHOSEN | {
        "demo",
        "docs",
        "hub",
        "litert",
        "onnx",
        "plots",
        "tensorboard",
        "test",
        "tfmot",
    }
    # The API reference is built by itself; the tests run on TensorFlow and on what else is there.
    for name in ("docs", "hub", "jax", "torch"):
        del extras[name]
    assert set().union(*extras.values()) <= extras["test"]


def test_a_plain_installation_brings_no_backend(setup):
    core = requirements(setup["options"]["install_requires"])
    assert core == {"keras", "numpy", "rich"}
    extras = setup["options.extras_require"]
    for name in CHOSEN:
        assert requirements(extras[name]) == {name}
    assert "tensorflow" in requirements(extras["demo"]) & requirements(extras["test"])


def test_types_and_version_are_packaged(setup):
    assert (Path(tfprune.__file__).parent / "py.typed").exists()
    assert "py.typed" in setup["options.package_data"]["tfprune"].split()
    assert setup["metadata"]["version"] == "attr: tfprune._base.version.__version__"
    assert re.fullmatch(r"\d+\.\d+\.\d+", tfprune.__version__)
    assert setup["metadata"]["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()


def test_ci_runs_the_commands_of_the_readme():
    readme = (ROOT / "README.md").read_text()
    commands = re.findall(r"^```bash\n(.*)\n```$", readme, flags=re.MULTILINE)
    assert len(commands) == 2
    script = (ROOT / ".ci" / "run").read_text()
    assert all(command in script for command in commands)


def test_every_folder_is_a_package():
    """Others are not installed, though they can be imported from a checkout."""
    folders = {path.parent for path in (ROOT / "tfprune").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_files_that_the_documents_name_exist():
    documents = [
        ROOT / "README.md",
        ROOT / "docs" / "how_to_add.md",
        ROOT / "docs" / "architecture.md",
    ]
    for document in [*documents, *(ROOT / "docs" / "guide").glob("*.md")]:
        text = document.read_text()
        named = set(re.findall(r"`((?:tests|docs|tutorials|benchmarks)/[\w./]+)`", text))
        assert named or document not in documents
        assert {name for name in named if not (ROOT / name).exists()} == set()


def test_the_house_of_the_document_is_the_house_that_stands():
    rows = re.findall(r"^\| \d+ \| `([\w./]+)`", (ROOT / "docs/architecture.md").read_text(), re.M)
    package = ROOT / "tfprune"
    standing = {path.name for path in package.glob("*.py")}
    standing |= {f"{inner.parent.name}/" for inner in package.glob("*/__init__.py")}
    assert set(rows) == standing


def test_the_criteria_of_the_guide_are_those_that_there_are():
    page = (ROOT / "docs" / "guide" / "criteria.md").read_text()
    section = page.split("\n## All of them\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| [^|]+ \| (`.*) \|$", section, flags=re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(
        tfprune.criteria.built_in()
    )
