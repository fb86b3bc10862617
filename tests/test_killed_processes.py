"""One of two JAX processes is killed in mid-training, and both go on from the checkpoint."""

import pathlib
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from test_devices import free_addresses, run_together

SCRIPT = pathlib.Path(__file__).with_name("killed_truth.py")


def kill_one(folder):
    """Runs two processes, of which the second kills itself, and ends the first."""
    addresses = free_addresses(2)
    running = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), str(n), "2", *addresses, "killed"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for n in range(2)
    ]
    try:
        return running[1].wait(timeout=300)
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.xdist_group("jax_devices")
def test_a_killed_process_ends_with_the_same_bits(tmp_path):
    pytest.importorskip("jax")
    pytest.importorskip("orbax.checkpoint")
    if not hasattr(keras.callbacks, "OrbaxCheckpoint"):
        pytest.skip("this Keras has no OrbaxCheckpoint")
    run_together(SCRIPT, tmp_path, 2, "whole")
    assert kill_one(tmp_path) == -signal.SIGKILL
    assert not (tmp_path / "killed_0.npz").exists()
    run_together(SCRIPT, tmp_path, 2, "restarted")
    for process in range(2):
        with np.load(tmp_path / f"whole_{process}.npz") as whole:
            expected = dict(whole)
        with np.load(tmp_path / f"restarted_{process}.npz") as restarted:
            found = dict(restarted)
        # The checkpoint of the second epoch may not have been whole yet.
        assert expected.pop("begun") == 0 and found.pop("begun") in (1, 2)
        zeros = sum(int((~mask).sum()) for name, mask in expected.items() if "mask" in name)
        assert zeros == 0.75 * (16 * 32 + 32 * 8)
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value)
