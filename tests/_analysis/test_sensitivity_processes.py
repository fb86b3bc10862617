"""Two processes that measure one model into one file at the same time."""

import json
import pathlib
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import tfprune

SPARSITIES = tuple(np.arange(1, 20) / 20)


def measured(path):
    """The same weights and values in every process."""
    hidden = keras.layers.Dense(8, name="hidden")
    output = keras.layers.Dense(3, name="output")
    model = keras.Sequential([keras.Input((6,)), hidden, output])
    random = np.random.default_rng(0)
    model.set_weights([random.normal(size=weight.shape) for weight in model.weights])

    def total(one):
        return float(sum(np.abs(np.asarray(weight)).sum() for weight in one.weights))

    return tfprune.sensitivity(model, metric=total, sparsities=SPARSITIES, path=path, verbose=0)


def begin_together(folder, number):
    """Waits for the other process, then measures."""
    (folder / f"ready_{number}").touch()
    while not (folder / f"ready_{1 - number}").exists():
        time.sleep(0.001)
    found = measured(folder / "shared.json").to_dict()
    (folder / f"found_{number}.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_two_processes_with_one_file_do_not_destroy_each_other(tmp_path):
    running = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path), str(number)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        whole = measured(tmp_path / "alone.json").to_dict()
        said = [process.communicate(timeout=1200)[1] for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert [process.returncode for process in running] == [0, 0], said
    for number in range(2):
        found = json.loads((tmp_path / f"found_{number}.json").read_text())
        assert found == json.loads(json.dumps(whole))
    assert (tmp_path / "shared.json").read_bytes() == (tmp_path / "alone.json").read_bytes()
    assert not list(tmp_path.glob(".*"))


if __name__ == "__main__":
    begin_together(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
