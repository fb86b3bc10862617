"""From tfmot on tf_keras to Keras 3, compared with the results and further training of tfmot."""

import importlib.util
import json
import os
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import interop_truth
import keras
import numpy as np
import pytest
from keras_support import outputs
from truth_support import run_without_backend

import tfprune
from tfprune.cli import main
from tfprune.interop import migrate

needs_tfmot = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_model_optimization") is None, reason="needs tfmot"
)


@pytest.fixture(scope="session")
def moved(tmp_path_factory):
    """Files of tfmot models, what was read of them, and the truth; made in one process."""
    folder = tmp_path_factory.mktemp("moved")
    run_without_backend(interop_truth.__file__, folder)
    with np.load(folder / "truth.npz") as truth:
        return SimpleNamespace(folder=folder, truth=dict(truth))


@pytest.fixture
def convert(moved, monkeypatch):
    """from_tfmot, with what the reader made of a file in the process that saved it."""

    def reader(path, folder, legacy_code, safe_mode):
        name = path.stem + ("_with_code" if legacy_code else "")
        shutil.copytree(moved.folder / "read" / name, folder, dirs_exist_ok=True)
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(migrate, "_run_reader", reader)

    def converted(name, custom_objects=None, by=tfprune.interop.from_tfmot, **options):
        (path,) = (p for p in moved.folder.iterdir() if p.stem == name)
        return by(path, custom_objects, **options)

    return converted


@keras.saving.register_keras_serializable(package="test_interop")
class Mix(keras.layers.Layer, tfprune.PrunableLayer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.first = self.add_weight(shape=(input_shape[-1], self.units), name="first")
        self.second = self.add_weight(shape=(self.units, self.units), name="second")

    def call(self, inputs):
        return inputs @ self.first @ self.second

    def get_prunable_weights(self):
        return [self.second]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Stairs(tfprune.PruningSchedule):
    def __init__(self, sparsity, every):
        self.sparsity, self.every = sparsity, every

    def __call__(self, step):
        stairs = keras.ops.minimum(keras.ops.cast(step // self.every, "float32"), 4.0)
        return step % self.every == 0, self.sparsity * stairs / 4.0

    def get_config(self):
        return {"sparsity": self.sparsity, "every": self.every}


CUSTOM = {"Mix": Mix, "Stairs": Stairs}


def wrappers(model, around=""):
    """`{path: wrapper}`."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, tfprune.PruneLowMagnitude):
            found[around + layer.name] = layer
        elif isinstance(layer, keras.Model):
            found.update(wrappers(layer, f"{around}{layer.name}/"))
    return found


def arrays(truth, name, kind):
    found = [truth[f"{name}/{kind}_{i}"] for i in range(9) if f"{name}/{kind}_{i}" in truth]
    return found[0] if len(found) == 1 else found


def check_same(model, truth, name):
    """Outputs, masks, weights and steps are those of tfmot; and nothing else is wrapped."""
    found = wrappers(model)
    masks = {k.removeprefix(name + "/"): v for k, v in truth.items() if k.startswith(name + "/")}
    expected = {key.rsplit("/", 1)[0] for key in masks if "/mask_" in key}
    assert set(found) == expected and expected
    for path, wrapper in found.items():
        weights = wrapper.pruned_weights
        numbered = [k for k in masks if k.rsplit("/", 1)[0] == path and "/mask_" in k]
        assert len(weights) == len(numbered)
        for number, weight in enumerate(weights):
            mask = keras.ops.convert_to_numpy(weight.mask)
            kernel = keras.ops.convert_to_numpy(weight.variable)
            np.testing.assert_array_equal(mask, masks[f"{path}/mask_{number}"] == 1)
            kept = np.where(mask, masks[f"{path}/weight_{number}"], 0)
            np.testing.assert_array_equal(kernel, kept)
            assert not kernel[~mask].any() and not np.signbit(kernel[~mask]).any()
        assert wrapper.pruning_step == max(0, masks[f"{path}/step"])
    check_outputs(model, truth, name)


def check_outputs(model, truth, name):
    inputs, expected = arrays(truth, name, "input"), arrays(truth, name, "output")
    if not isinstance(model, keras.Sequential):
        inputs = keras.tree.pack_sequence_as(model.input, keras.tree.flatten(inputs))
    found = model(inputs, training=False)
    for ours, theirs in zip(
        keras.tree.flatten(found),
        expected if isinstance(expected, list) else [expected],
        strict=True,
    ):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(ours) / scale, theirs / scale, rtol=0, atol=1e-5
        )


pytestmark = needs_tfmot

# -- The same model --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["h5", "keras", "saved_model", "fresh", "everything", "blocks", "nested"]
)
def test_weights_masks_steps_and_outputs_are_tfmots(moved, convert, name):
    check_same(convert(name), moved.truth, name)


def test_layers_of_all_kinds(moved, convert):
    model = convert("zoo")
    check_same(model, moved.truth, "zoo")
    flags = {layer.name: layer.trainable for layer in model.layers}
    assert not flags["frozen"] and not flags["dense"] and flags["gru"]
    assert not model.get_layer("dense").layer.trainable


def test_mixed_precision(moved, convert):
    model = convert("mixed")
    (wrapper,) = wrappers(model).values()
    assert wrapper.layer.dtype_policy.name == "mixed_float16"
    (weight,) = wrapper.pruned_weights
    kernel = keras.ops.convert_to_numpy(weight.variable)
    assert kernel.dtype == "float32"
    np.testing.assert_array_equal(kernel, moved.truth["mixed/half/weight_0"])
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(weight.mask), moved.truth["mixed/half/mask_0"]
    )
    found = keras.ops.convert_to_numpy(model(moved.truth["mixed/input_0"], training=False))
    np.testing.assert_allclose(found, moved.truth["mixed/output_0"], rtol=5e-3)


def test_layers_have_their_own_names_and_flags_again(convert):
    model = convert("h5")
    names = [layer.name for layer in model.layers]
    assert names[:2] + names[3:] == ["conv", "norm", "hidden", "out"]
    assert type(model.layers[1]) is keras.layers.BatchNormalization
    regularizer = model.get_layer("hidden").layer.kernel_regularizer
    assert float(regularizer.l2) == pytest.approx(0.01)


def test_a_wrapper_keeps_its_name_where_another_layer_has_the_inner_one(moved, convert):
    model = convert("alike")
    assert [layer.name for layer in model.layers] == ["prune_low_magnitude_a", "a", "b"]
    truth = {
        key.replace("alike/a/", "alike/prune_low_magnitude_a/"): moved.truth[key]
        for key in moved.truth
    }
    check_same(model, truth, "alike")


def test_nested_models_stay_nested(convert):
    model = convert("nested")
    assert set(wrappers(model)) == {"deep/inner/same", "deep/dense", "shared", "same", "last"}
    assert [len(tensors) for tensors in (model.inputs, model.outputs)] == [2, 2]


def test_schedules_patterns_and_numbers(convert):
    model = convert("blocks")
    hidden, out = (wrappers(model)[name].get_config() for name in ("hidden", "out"))
    expected = keras.saving.serialize_keras_object(tfprune.Block((2, 4), "MAX"))
    assert hidden["pattern"] == expected
    assert hidden["pruning_schedule"]["class_name"] == "PolynomialDecay"
    assert hidden["pruning_schedule"]["config"] == interop_truth.SCHEDULE
    assert out["pruning_schedule"]["class_name"] == "ConstantSparsity"
    assert out["pruning_schedule"]["config"] == {
        "target_sparsity": 0.5,
        "begin_step": 3,
        "end_step": 40,
        "frequency": 7,
    }


def test_what_drifted_is_zero_and_all_else_is_untouched(moved, convert):
    found = [w for owner in wrappers(convert("drift")).values() for w in owner.pruned_weights]
    assert len(found) == 2
    for number, weight in enumerate(found):
        raw = moved.truth[f"drift/raw_{number}"]
        mask = keras.ops.convert_to_numpy(weight.mask)
        assert np.abs(raw[~mask]).max() > 1e-4
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(weight.variable), np.where(mask, raw, 0)
        )
        assert weight.layer.name == ("conv", "hidden")[number]


def test_n_of_m(moved, convert):
    expected = keras.saving.serialize_keras_object(tfprune.NOfM(zeros=2, group=4))
    live = keras.saving.load_model(moved.folder / "live_m_by_n.keras")
    for model in (convert("m_by_n", sparsity_m_by_n=(2, 4)), live):
        check_same(model, moved.truth, "m_by_n")
        config = wrappers(model)["hidden"].get_config()
        assert config["pattern"] == expected
        # tfmot prunes 2 of 4 at once, whatever its schedule says.
        assert config["pruning_schedule"]["config"] == {
            "target_sparsity": 0.5,
            **{k: interop_truth.SCHEDULE[k] for k in ("begin_step", "end_step", "frequency")},
        }
        (mask,) = all_masks(model)
        assert (mask.reshape(-1, 4, 8).sum(axis=1) == 2).all()


# -- Going on --------------------------------------------------------------------------------------


class Zeros(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(logs["sparsity"])


def all_masks(model):
    weights = [w for owner in wrappers(model).values() for w in owner.pruned_weights]
    return [keras.ops.convert_to_numpy(weight.mask) for weight in weights]


def go_on(model):
    model.compile("adam", "mse")
    zeros = Zeros()
    x, y = interop_truth.data(interop_truth.AFTER)
    callbacks = [tfprune.UpdatePruningStep(), zeros]
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=callbacks)
    return zeros.seen


def test_masks_are_updated_when_tfmot_would_have(moved, convert):
    before, expected = np.split(moved.truth["sparsity"], [interop_truth.BEFORE])
    assert len(np.unique(expected)) > 3 and expected[-1] > before[-1]
    model = convert("h5")
    masks = all_masks(model)
    found = go_on(model)
    np.testing.assert_array_equal(found, expected)
    assert {wrapper.pruning_step for wrapper in wrappers(model).values()} == {
        interop_truth.BEFORE + interop_truth.AFTER
    }
    assert found[-1] == pytest.approx(interop_truth.SCHEDULE["final_sparsity"], abs=1e-3)
    for old, new in zip(masks, all_masks(model), strict=True):
        assert (old & new == new).all() and (old != new).any()


def test_a_training_that_had_not_begun_begins(convert):
    with pytest.warns(UserWarning, match="13"):
        found = go_on(convert("fresh"))
    schedule = tfprune.PolynomialDecay(**interop_truth.SCHEDULE)
    due, value = schedule.evaluate(np.arange(interop_truth.AFTER + 1))
    size = 6 * 6 * 6 * 8
    held = [value[: step + 1][due[: step + 1]][-1] for step in range(1, len(due))]
    np.testing.assert_allclose(found, held, rtol=0, atol=1 / size)


def test_stripped_and_saved_it_loads_with_keras_alone(convert, tmp_path):
    model = convert("h5")
    tfprune.strip_pruning(model).save(tmp_path / "plain.keras")
    plain = keras.saving.load_model(tmp_path / "plain.keras")
    x, _ = interop_truth.data(1)
    np.testing.assert_array_equal(outputs(plain, x), outputs(model, x))


def test_a_live_model_is_converted_and_left_alone(moved):
    check_same(keras.saving.load_model(moved.folder / "live.keras"), moved.truth, "live")
    assert moved.truth["live/unchanged"]
    assert moved.truth["live/own_schedule_is_kept"]


@pytest.mark.parametrize("name", ["plain", "plain_h5", "plain_graph", "plain_named"])
def test_plain_models_of_tf_keras(moved, convert, name, tmp_path):
    model = convert(name, by=tfprune.interop.from_tf_keras)
    check_outputs(model, moved.truth, name)
    assert not wrappers(model)
    model.save(tmp_path / "keras_3.keras")
    check_outputs(keras.saving.load_model(tmp_path / "keras_3.keras"), moved.truth, name)


@pytest.mark.parametrize("name", ["saved_model", "nested"])
def test_what_tfmot_wrapped_comes_stripped_as_a_plain_model(moved, convert, name):
    model = convert(name, by=tfprune.interop.from_tf_keras)
    check_outputs(model, moved.truth, name)
    assert not wrappers(model) and "tfprune" not in model.to_json()
    expected = tfprune.strip_pruning(convert(name)).get_weights()
    for ours, theirs in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


# -- A separate process ----------------------------------------------------------------------------


def test_a_file_with_own_classes_is_read_and_this_process_stays_as_it_was(moved):
    import tensorflow as tf

    environment, modules = dict(os.environ), set(sys.modules)
    code = Path(__file__).parents[1].joinpath("interop_legacy_code.py")
    model = tfprune.interop.from_tfmot(moved.folder / "custom.h5", CUSTOM, legacy_code=code)
    check_same(model, moved.truth, "custom")
    wrapper = wrappers(model)["mix"]
    assert type(wrapper.layer) is Mix
    (weight,) = wrapper.pruned_weights
    assert weight.path == "second"
    schedule = weight.method.schedule
    assert (type(schedule), schedule.sparsity, schedule.every) == (Stairs, 0.8, 2)
    assert dict(os.environ) == environment
    new = {name.split(".")[0] for name in set(sys.modules) - modules}
    assert not new & {"tf_keras", "tensorflow_model_optimization"}
    assert tf.keras.__version__.startswith("3.")


@pytest.mark.slow
def test_the_command_line_takes_a_saved_model_of_tf_keras(moved, tmp_path, capsys):
    folder = moved.folder / "plain"
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    x, y = interop_truth.data(4)
    np.savez(tmp_path / "data.npz", x=x, y=y)
    words = ["prune", folder, "--data", tmp_path / "data.npz", "--sparsity", 0.75, "--epochs", 2]
    words += ["--loss", "mse", "-o", tmp_path / "pruned.keras", "--json"]
    assert main([str(word) for word in words]) == 0, capsys.readouterr().err
    kernel = keras.saving.load_model(tmp_path / "pruned.keras").get_layer("hidden").kernel
    assert np.count_nonzero(keras.ops.convert_to_numpy(kernel)) == np.prod(kernel.shape) // 4
    assert files == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(["report", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bytes"] == sum(len(data) for data in files.values())
    assert found["sparsity"]["prunable"]["zeros"] == 0
    assert main(["report", str(moved.folder / "lambda_folder")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "Lambda layer, whose code would run" in line


# -- Errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, said",
    [
        ("stripped", "layers that tfmot wrapped.*stripped.h5.*without any.*strip_pruning"),
        ("text", "whole model that tf_keras can load.*text.h5.*file signature.*only weights"),
        ("weights", "whole model.*No model config.*load them into the model"),
        ("lambda", "whole model.*Lambda layer, whose code would run"),
        ("lambda_keras", "whole model.*Lambda.*code would run"),
        ("lambda_folder", "whole model.*Lambda layer, whose code would run"),
        ("custom", "whole model.*Unknown object: 'Stairs'.*`legacy_code`"),
        ("hard_sigmoid", r"'hard_sigmoid' in layer 'gate'.*clip\(0.2"),
        ("thresholded", "counterpart.*'cut', a ThresholdedReLU.*custom_objects"),
        ("time_major", "config that LSTM of Keras 3 supports.*time_major=True in layer"),
        ("operation", "counterpart.*'tf.__operators__.add', a TFOpLambda.*Add or Reshape"),
    ],
)
def test_what_cannot_be_moved_is_named(convert, name, said):
    with pytest.raises(ValueError, match=said):
        convert(name)


@pytest.mark.parametrize(
    "name, said",
    [
        ("shared", "ValueError: .*shared by models, .*twice"),
        ("subclassed", "ValueError: .*Sequential or Functional model.*class Own"),
        ("single", r"TypeError: .*model_or_path=PruneLowMagnitude.*tf_keras\.Sequential"),
        ("m_by_n", r"ValueError: .*`sparsity_m_by_n` only for a file.*\(2, 4\)"),
    ],
)
def test_live_models_that_cannot_be_moved(moved, name, said):
    assert re.match(said, str(moved.truth[f"refused/{name}"]))


def test_objects_of_a_files_own_classes_have_to_be_given(convert):
    code = __file__
    with pytest.raises(ValueError, match=r"counterpart.*'mix', a Mix.*custom_objects={'Mix'"):
        convert("custom", legacy_code=code)
    with pytest.raises(
        ValueError, match=r"schedules of tfprune.*Stairs, the schedule of 'prune_low"
    ):
        convert("custom", {"Mix": Mix}, legacy_code=code)

    class Other(Mix):
        def call(self, inputs):
            return super().call(inputs) + 1

    class Fewer(Mix):
        def build(self, input_shape):
            self.first = self.add_weight(shape=(input_shape[-1], self.units), name="first")
            self.second = keras.ops.ones((self.units, self.units))

    with pytest.raises(ValueError, match=r"equal those of the tf_keras model.*difference"):
        convert("custom", {**CUSTOM, "Mix": Other}, legacy_code=code)
    with pytest.raises(ValueError, match=r"weights of 'prune_low_magnitude_mix' to be those of"):
        convert("custom", {**CUSTOM, "Mix": Fewer}, legacy_code=code)


def test_weights_that_are_not_declared_prunable(convert):
    class First(Mix):
        def get_prunable_weights(self):
            return [self.first]

    with pytest.raises(ValueError, match=r"mix/second' to be a weight that can be pruned.*First"):
        convert("custom", {**CUSTOM, "Mix": First}, legacy_code=__file__)


@keras.saving.register_keras_serializable(package="test_interop")
def as_it_was(x):
    return keras.ops.clip(0.2 * x + 0.5, 0, 1)


def test_hard_sigmoid_may_be_given(convert):
    model = convert("hard_sigmoid", {"hard_sigmoid": as_it_was})
    assert model.get_layer("gate").activation is as_it_was


def test_damaged_masks_are_refused(moved, convert):
    folder = moved.folder / "read" / "damaged"
    shutil.copytree(moved.folder / "read" / "fresh", folder)
    shutil.copy(moved.folder / "fresh.keras", moved.folder / "damaged.keras")
    with np.load(folder / "arrays.npz") as stored:
        found = dict(stored)
    for key in found:
        if "/mask_" in key:
            found[key] = found[key] * 0.5
    np.savez(folder / "arrays.npz", **found)
    with pytest.raises(ValueError, match=r"zeros and ones for .*_hidden/kernel'.*damaged"):
        convert("damaged")


PLAIN = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])


@pytest.mark.parametrize(
    "arguments, error, said",
    [
        ((PLAIN,), TypeError, "Keras 3 Sequential.*prune_low_magnitude"),
        ((tfprune.prune_low_magnitude(PLAIN),), TypeError, "Keras 3"),
        ((None,), TypeError, "model_or_path=NoneType"),
        ((b"model.h5",), TypeError, "model_or_path=bytes"),
        (("missing.h5",), ValueError, "'missing.h5', which does not exist"),
        ((__file__, [Mix]), TypeError, "custom_objects.* dictionary"),
        ((__file__, None, 4), TypeError, "`sparsity_m_by_n` to be a pair"),
        ((__file__, None, ()), TypeError, "`sparsity_m_by_n` to be a pair"),
    ],
)
def test_wrong_arguments(arguments, error, said):
    *first, m_by_n = arguments if len(arguments) == 3 else (*arguments, None)
    with pytest.raises(error, match=said):
        tfprune.interop.from_tfmot(*first, sparsity_m_by_n=m_by_n)


def test_missing_legacy_code():
    with pytest.raises(ValueError, match=r"`legacy_code` to be the path.*'nothing.py'"):
        tfprune.interop.from_tfmot(__file__, legacy_code="nothing.py")


@pytest.mark.parametrize("name", ["tensorflow_model_optimization", "tf_keras"])
def test_missing_packages_are_named_with_the_extra(monkeypatch, name):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == name else find(n))
    with pytest.raises(ImportError, match=rf"Expected {name} to be installed.*tfprune\[tfmot\]"):
        tfprune.interop.from_tfmot(__file__)


def test_a_process_that_breaks_off_says_why(monkeypatch):
    done = SimpleNamespace(returncode=1, stderr="out of memory")
    monkeypatch.setattr(migrate, "_run_reader", lambda *arguments: done)
    with pytest.raises(ValueError, match="out of memory"):
        tfprune.interop.from_tfmot(__file__)
