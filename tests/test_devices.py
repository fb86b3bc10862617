"""Many devices: 8 virtual JAX devices in one process and in two, against one device."""

import json
import pathlib
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.slow

SCRIPT = pathlib.Path(__file__).with_name("devices_truth.py")
LAYOUTS = {
    "data": ["P(None, None)", "P(None, None)"],
    "columns": ["P(None, 'model')", "P(None, 'model')"],
    "kernels alone": ["P(None, 'model')", "P(None, 'model')"],
    "rows": ["P('model', None)", "P(None, 'model')"],
}


def free_addresses(number):
    sockets = [socket.socket() for _ in range(number)]
    for item in sockets:
        item.bind(("localhost", 0))
    found = [f"localhost:{item.getsockname()[1]}" for item in sockets]
    for item in sockets:
        item.close()
    return found


def run_together(script, folder, number, *arguments):
    """Runs a script in so many processes, which find each other."""
    addresses = free_addresses(number)
    running = [
        subprocess.Popen(
            [sys.executable, str(script), str(folder), str(n), str(number), *addresses, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for n in range(number)
    ]
    try:
        printed = [process.communicate(timeout=300)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * number, printed[-1][-3000:]


def read(folder, name):
    with np.load(folder / f"{name}.npz") as arrays:
        values = {key: arrays[key] for key in arrays.files}
    return json.loads((folder / f"{name}.json").read_text()), values


def assert_same(folder, name):
    """Same masks as on one device; weights up to the order in which devices add."""
    _, expected = read(folder, "one")
    found, values = read(folder, name)
    assert found["report"] == found["sparsity"][-1] == 0.75
    for key, value in expected.items():
        if key.startswith("mask"):
            np.testing.assert_array_equal(values[key], value)
        else:
            np.testing.assert_allclose(values[key], value, rtol=1e-4, atol=1e-6)
            assert np.array_equal(values[key] == 0, value == 0)


@pytest.fixture(scope="module")
def jax_devices(tmp_path_factory):
    pytest.importorskip("jax")
    folder = tmp_path_factory.mktemp("devices")
    run_together(SCRIPT, folder, 1)
    return folder


@pytest.fixture(scope="module")
def jax_processes(jax_devices):
    pytest.importorskip("orbax.checkpoint")
    if not hasattr(keras.callbacks, "OrbaxCheckpoint"):
        pytest.skip("this Keras has no OrbaxCheckpoint")
    run_together(SCRIPT, jax_devices, 2)
    return jax_devices


@pytest.mark.xdist_group("jax_devices")
@pytest.mark.parametrize("way", LAYOUTS)
def test_eight_devices_prune_as_one_does(way, jax_devices):
    assert_same(jax_devices, way)


@pytest.mark.xdist_group("jax_devices")
@pytest.mark.parametrize("way", LAYOUTS)
def test_masks_lie_as_their_weights_do(way, jax_devices):
    found, _ = read(jax_devices, way)
    assert found["layouts"] == [[layout, layout] for layout in LAYOUTS[way]]


@pytest.mark.xdist_group("jax_devices")
@pytest.mark.parametrize("process", ["process 0", "process 1"])
def test_two_processes_restored_by_orbax_prune_as_one_device_does(process, jax_processes):
    found, _ = read(jax_processes, process)
    assert found["spans"] == [True, True] and found["steps"] == [8, 8]
    assert_same(jax_processes, process)


@pytest.mark.xdist_group("jax_devices")
def test_a_report_on_one_process_alone_says_that_all_have_to_call_it(jax_processes):
    said = (jax_processes / "alone.txt").read_text()
    assert said.startswith("Expected all processes to read the weights, which span them.")


@pytest.mark.xdist_group("jax_devices")
def test_the_device_kernel_exchanges_one_number_a_weight_and_no_weights(jax_devices):
    keys, found, cuts, marked = json.loads((jax_devices / "collectives.json").read_text())
    # Whether all weights are finite, and nothing else.
    assert all(kind == "all-reduce" and shape.startswith("pred[3]") for shape, kind in keys)
    assert marked == []
    for step in (found, cuts):
        assert [kind for _, kind in step] == ["all-reduce"]
        assert step[0][0].startswith("s32[3]")
