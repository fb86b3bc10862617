"""Files that version 0.1 wrote: they load, keep their masks, and training continues from them.

saved_by_0_1/write.py says how they were made. Defaults change from version to version, for
instance which weights are pruned; a saved model keeps those that it was saved with.
"""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import saved_files_support as support

import tfprune

WHOLE = ["compiled_graph", "n_of_m", "block", "coupled", "global_scope", "distribution", "rigl"]
WHOLE += ["subclassed", "convolutions", "tokens", "rules", "best", "tied"]

pytestmark = pytest.mark.filterwarnings("ignore:Expected a file with checksums:UserWarning")

# Random numbers and rounding are the backend's own, and so are two of the formats.
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the files were written on TensorFlow"
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of the files."""
    folder = tmp_path_factory.mktemp("saved")
    shutil.unpack_archive(Path(__file__).parent / "saved_by_0_1" / "files.zip", folder)
    return folder


@pytest.fixture(scope="module")
def expected(saved):
    """`{"kind:moment:path": array}`, masks as bits."""
    arrays = {}
    for name in ("expected.npz", "expected_tied.npz"):
        with np.load(saved / name) as file:
            arrays.update(file)
    return arrays


def assert_state(model, expected, prefix, exact):
    """Masks and steps are exact; trained weights are where machines round sums differently."""
    known = {key.removeprefix(prefix): a for key, a in expected.items() if key.startswith(prefix)}
    found = support.state(model)
    assert sorted(found) == sorted(known)
    for path, value in found.items():
        if value.dtype == bool:
            np.testing.assert_array_equal(np.packbits(value), known[path], path)
        elif exact or path == "steps":
            np.testing.assert_array_equal(value, known[path], path)
        else:
            np.testing.assert_allclose(value, known[path], rtol=1e-5, atol=1e-6, err_msg=path)


def assert_trained_on(model, expected, kind, callback=None, before=()):
    """Another epoch gives what it gave the model that was saved."""
    support.train(model, 1, 2, callback, before)
    assert_state(model, expected, f"{kind}:trained:", exact=False)


def load(saved, kind):
    if kind == "tied" and not hasattr(keras.layers, "ReversibleEmbedding"):
        pytest.skip(f"Keras {keras.__version__} has no ReversibleEmbedding")
    return keras.saving.load_model(saved / f"{kind}.keras")


# -- Whole models ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WHOLE)
def test_a_model_has_its_masks_steps_and_weights(kind, saved, expected):
    model = load(saved, kind)
    assert_state(model, expected, f"{kind}:saved:", exact=True)
    stripped = tfprune.strip_pruning(model)
    assert not any("mask" in weight.path for weight in stripped.weights)


@on_tensorflow
@pytest.mark.parametrize("kind", WHOLE)
def test_training_of_a_model_goes_on(kind, saved, expected):
    model = load(saved, kind)
    zeros = tfprune.sparsity_report(model).prunable.zeros
    assert_trained_on(model, expected, kind, support.rigl(model) if kind == "rigl" else None)
    if kind not in ("rigl", "best"):
        assert tfprune.sparsity_report(model).prunable.zeros > zeros


@pytest.mark.parametrize("kind", WHOLE)
def test_a_model_saved_again_is_the_same(kind, saved, expected, tmp_path):
    load(saved, kind).save(tmp_path / "again.keras")
    again = keras.saving.load_model(tmp_path / "again.keras")
    assert_state(again, expected, f"{kind}:saved:", exact=True)


def test_a_model_in_the_old_format_has_its_masks_and_weights(saved, expected):
    model = keras.saving.load_model(saved / "legacy.h5")
    # It keeps no step.
    expected = {**expected, "legacy:saved:steps": np.zeros(2, int)}
    assert_state(model, expected, "legacy:saved:", exact=True)


# -- Files that hold no model ----------------------------------------------------------------------


@on_tensorflow
@pytest.mark.parametrize("way", ["weights", "checkpoint", "backup"])
def test_training_goes_on_from_states_of_a_model(way, saved, expected, tmp_path):
    model, before = support.sequential(), []
    if way == "backup":
        # Training deletes it in the end.
        shutil.copytree(saved / "backup", tmp_path / "backup")
        before = [keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))]
        support.train(model, 0, 2, before=before)
        assert_state(model, expected, "sequential:trained:", exact=False)
        return
    model.optimizer.build(model.trainable_variables)
    if way == "weights":
        model.load_weights(saved / "sequential.weights.h5")
    else:
        import tensorflow as tf

        path = tf.train.latest_checkpoint(str(saved / "checkpoint"))
        checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
        checkpoint.restore(path).assert_existing_objects_matched()
    assert_state(model, expected, "sequential:saved:", exact=True)
    assert_trained_on(model, expected, "sequential")


@on_tensorflow
def test_lottery_tickets_go_on(saved, expected, tmp_path):
    shutil.copytree(saved / "tickets", tmp_path / "tickets")
    config = tmp_path / "tickets" / "config.json"
    assert '"module": "tfprune.patterns"' in config.read_text()
    # The files that classes are in move from version to version; their registered names stay.
    config.write_text(config.read_text().replace('"tfprune.', '"tfprune.moved.'))
    train = support.Rounds()
    tickets = support.lottery().run(train, tmp_path / "tickets")
    assert train.count == 1
    for round in range(3):
        ticket = tickets.ticket(round)
        assert_state(ticket, expected, f"tickets:before_{round}:", exact=True)
        ticket = tickets.ticket(round, trained=True)
        assert_state(ticket, expected, f"tickets:trained_{round}:", exact=round < 2)
    losses = [one.metrics["loss"] for one in tickets.rounds]
    np.testing.assert_allclose(losses, expected["tickets:metrics"], rtol=1e-5)


def test_a_sensitivity_analysis_goes_on(saved, expected, tmp_path, monkeypatch):
    shutil.copy(saved / "sensitivity.json", tmp_path)
    measured = []

    def total(model):
        measured.append(support.total(model))
        return measured[-1]

    found = tfprune.sensitivity(
        support.plain(),
        metric=total,
        pattern="row",
        sparsities=(0.25, 0.5, 0.75),
        path=tmp_path / "sensitivity.json",
        verbose=0,
    )
    assert len(measured) == len(found.rows) == 3
    np.testing.assert_allclose([r.values for r in found.rows], expected["sensitivity"], rtol=1e-6)


# -- Configs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def configs(saved):
    return json.loads((saved / "configs.json").read_text())


def without_modules(config):
    """A config without the files of its classes, which are found by registered name."""
    if not isinstance(config, dict):
        return config
    return {key: without_modules(value) for key, value in config.items() if key != "module"}


def test_parts_of_methods_are_made_from_their_configs(configs):
    count = 0
    for config in [*configs["patterns"], *configs["criteria"], *configs["others"]]:
        part = keras.saving.deserialize_keras_object(config)
        again = keras.saving.serialize_keras_object(part)
        assert again["registered_name"] == config["registered_name"]
        # A part may have got further arguments since then.
        now = without_modules(json.loads(json.dumps(again["config"])))
        assert now.items() >= without_modules(config["config"]).items()
        count += 1
    assert count == 46


def test_schedules_ask_for_the_same_sparsities(configs, expected):
    assert len(configs["schedules"]) == 7
    for position, config in enumerate(configs["schedules"]):
        schedule = keras.saving.deserialize_keras_object(config)
        due, sparsity = schedule.evaluate(np.arange(30))
        np.testing.assert_array_equal(due, expected[f"schedules:{position}:due"])
        known = expected[f"schedules:{position}:sparsity"]
        np.testing.assert_allclose(sparsity, known, rtol=1e-6, err_msg=config["class_name"])


def test_patterns_give_the_same_masks(configs, expected):
    kernel = support.numbers(2, 2, 4, 8)
    for position, config in enumerate(configs["patterns"]):
        pattern = keras.saving.deserialize_keras_object(config)
        mask = tfprune.compute_mask(kernel, 0.5, pattern=pattern)
        np.testing.assert_array_equal(np.packbits(mask), expected[f"patterns:{position}"])


def test_a_schedule_in_the_form_of_tfmot(configs, expected):
    layer = keras.saving.deserialize_keras_object(configs["nested"])
    layer(support.numbers(1, 4))
    pruning = tfprune.UpdatePruningStep(keras.Sequential([layer]))
    known = expected["schedules:1:sparsity"]
    steps = range(1, 21)
    zeros = []
    for _ in steps:
        pruning.step()
        zeros.append(tfprune.sparsity_report(layer).prunable.zeros)
    due = expected["schedules:1:due"]
    latest = [max([at for at in range(step + 1) if due[at]], default=0) for step in steps]
    assert zeros == [round(16 * known[at]) if due[at] else 0 for at in latest]
    assert pruning.sparsity == 0.75
