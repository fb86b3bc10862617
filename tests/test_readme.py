"""Every example in the documents runs, page by page: README, landing page, guide, how to add.

A page runs from top to bottom in its own process and folder:

- Blocks of `python` run as one program. One that imports a backend other than the active one is
  left out.
- Blocks of `console` run where they are reached: each line that starts with `$ ` is a command of
  bash, in the same folder; other lines are output. `tfprune` is the command of this checkout.
- `<!--python`, a new line, code, `-->` runs like a visible block: for set-up that would distract.
- `<!-- backend: tensorflow -->` on a separate line keeps a page from running on other backends.
- `<!-- package: keras_hub -->` keeps a page from running where the package is not installed.
- All other blocks (`text`, `bash`, ...) are for reading alone.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from keras_support import SLOW_ON_TENSORFLOW

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
LANDING = ROOT / "docs" / "index.md"
GUIDE = ROOT / "docs" / "guide"
PAGES = sorted(GUIDE.glob("*.md"))
BACKEND = keras.backend.backend()
FOREIGN = "|".join(sorted({"tensorflow", "jax", "torch"} - {BACKEND}))
BLOCK = re.compile(
    r"^```(?P<kind>python|console)\n(?P<shown>.*?)^```$|^<!--python\n(?P<hidden>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)


def program(text):
    """The examples of a page as one program; empty if the page has none for this backend."""
    if set(re.findall(r"^<!-- backend: (\w+) -->$", text, re.MULTILINE)) - {BACKEND}:
        return ""
    packages = re.findall(r"^<!-- package: (\w+) -->$", text, re.MULTILINE)
    if any(importlib.util.find_spec(package) is None for package in packages):
        return ""
    parts = []
    for block in BLOCK.finditer(text):
        code = block["shown"] or block["hidden"]
        if block["kind"] == "console":
            commands = re.findall(r"^\$ (.*)$", code, re.MULTILINE)
            assert commands, f"a console block without a command:\n{code}"
            code = "import subprocess\n" + "".join(
                f"subprocess.run(['bash', '-ec', {command!r}], check=True)\n"
                for command in commands
            )
        if not re.search(rf"^(import|from) ({FOREIGN})\b", code, re.MULTILINE):
            parts.append(code)
    return "\n\n".join(parts)


def pages_with_examples():
    for page in [README, LANDING, ROOT / "docs" / "how_to_add.md", *PAGES]:
        if program(page.read_text()):
            place = "front" if page == README else page.parent.name
            yield pytest.param(page, id=f"{place}/{page.stem}", marks=SLOW_ON_TENSORFLOW)


@pytest.mark.parametrize("page", list(pages_with_examples()))
def test_examples_run(page, tmp_path):
    scripts, folder = tmp_path / "bin", tmp_path / "folder"
    scripts.mkdir()
    folder.mkdir()
    command = scripts / "tfprune"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tfprune "$@"\n')
    command.chmod(0o755)
    script = scripts / "page.py"
    script.write_text(program(page.read_text()))
    done = subprocess.run(
        [sys.executable, script],
        cwd=folder,
        env={
            **os.environ,
            "MPLBACKEND": "agg",
            "PATH": os.pathsep.join([str(scripts), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_blocks_keep_the_order_of_the_page():
    text = (
        "```python\na = 1\n```\n<!--python\nb = 2\n-->\n```console\n$ ls -a\nfile\n```\n"
        "```bash\nrm file\n```\n```text\n>>> c\n```\n```python\nd = 4\n```\n"
    )
    command = "import subprocess\nsubprocess.run(['bash', '-ec', 'ls -a'], check=True)\n"
    blocks = ["a = 1\n", "b = 2\n", command, "d = 4\n"]
    assert program(text) == program(f"<!-- backend: {BACKEND} -->\n{text}") == "\n\n".join(blocks)


@pytest.mark.parametrize("other", FOREIGN.split("|"))
def test_examples_of_another_backend_are_left_out(other):
    text = f"```python\nimport {other}\n```\n```python\na = 1\n```\n"
    assert program(text) == "a = 1\n"
    assert program(f"<!-- backend: {other} -->\n{text}") == ""


def test_the_guide_lists_all_of_its_pages():
    index = (GUIDE / "index.md").read_text()
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```$", index, re.MULTILINE | re.DOTALL)
    listed = [line for tree in trees for line in tree.splitlines() if re.fullmatch(r"\w+", line)]
    assert len(listed) == len(set(listed))
    # Sphinx itself refuses a name without a page.
    assert {page.stem for page in PAGES} - {"index"} <= set(listed)


LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize(
    "page", [README, LANDING, *PAGES], ids=lambda page: f"{page.parent.name}/{page.stem}"
)
def test_links_lead_to_files_of_the_repository(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    targets = {target.split("#")[0] for _, target in LINK.findall(text)}
    inside = {target for target in targets if target and not re.match(r"https?://", target)}
    assert {target for target in inside if not (page.parent / target).exists()} == set()


def test_the_readme_is_short_and_reads_on_its_own():
    """Where the package is shown, a picture in a folder of the repository is not."""
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    assert [target for picture, target in LINK.findall(text) if picture] == []
    assert "<img" not in text


def test_the_main_use_is_short():
    (block, *_) = BLOCK.finditer(README.read_text())
    lines = [line for line in block["shown"].splitlines() if line and "import" not in line]
    assert len(lines) <= 12
    assert not re.search(r"steps_per_epoch=\d", block["shown"])
