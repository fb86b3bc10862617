"""Every Python example in the documents runs, on the active backend."""

import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from keras_support import SLOW_ON_TENSORFLOW

pytestmark = SLOW_ON_TENSORFLOW
ROOT = Path(__file__).parents[1]
DOCUMENTS = ["README.md", "docs/architecture.md"]
FOREIGN = {"tensorflow": "jax", "jax": "tensorflow"}.get(keras.backend.backend(), "jax|tensorflow")


def python_blocks(text):
    blocks = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [b for b in blocks if not re.search(rf"^import ({FOREIGN})\b", b, flags=re.MULTILINE)]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_examples_run(document, tmp_path):
    blocks = python_blocks((ROOT / document).read_text())
    assert blocks
    script = tmp_path / "examples.py"
    script.write_text("\n\n".join(blocks))
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
