"""Comparisons: every number against a count by hand, files against the files themselves."""

import gzip
import json
import re

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune._analysis.comparison import ShippedFile, html
from tfprune._analysis.comparison.tables import comparison_tables, shown
from tfprune._base.text import as_text

pytestmark = pytest.mark.usefixtures("fresh")


def build():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, activation="relu", name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.Flatten(),
            layers.Dense(5, activation="softmax", name="last"),
        ],
        name="small",
    )


def data(number=32):
    random = np.random.default_rng(0)
    return random.normal(size=(number, 8, 8, 3)).astype("float32"), random.integers(0, 5, number)


def change(comparison, name):
    (found,) = (item for item in comparison.layers if item.layer == name)
    return found


def test_counts_of_layers_and_totals():
    model = build()
    pruned = tfprune.pruners.one_shot(model, 0.75)
    found = tfprune.compare(model, pruned, formats=[], latency=False)
    conv, last = change(found, "conv"), change(found, "last")
    assert (conv.before.parameters, conv.before.prunable, conv.before.zeros) == (224, 216, 0)
    assert (conv.after.zeros, conv.after.sparsity) == (162, 0.75)
    assert conv.before.shape == (6, 6, 8)
    # Each weight multiplies once at each of the 36 places.
    assert conv.before.macs == conv.after.macs == conv.before.effective_macs == 36 * 216
    assert conv.after.effective_macs == 36 * (216 - 162)
    assert last.after.effective_macs == np.count_nonzero(
        tfprune.strip_pruning(pruned).get_layer("last").kernel
    )
    assert change(found, "bn").before.parameters == 32
    assert change(found, "bn").before.prunable == 0
    totals = found.totals
    assert totals["parameters"] == (model.count_params(),) * 2
    assert totals["macs"] == (tfprune.model_cost(model).macs,) * 2
    assert totals["zeros"] == (0, tfprune.sparsity_report(pruned).total.zeros)


@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        ((8, 8, 4), layers.DepthwiseConv2D(3)),
        ((8, 8, 4), layers.SeparableConv2D(5, 3)),
        ((4, 4, 2), layers.Conv2DTranspose(3, 2)),
        ((7, 6), layers.EinsumDense("abc,cde->abde", (7, 2, 5))),
        ((7, 6), layers.LSTM(5)),
        ((7, 6), layers.Bidirectional(layers.GRU(4))),
        ((7, 6), layers.TimeDistributed(layers.Dense(5))),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_effective_multiplications_fall_with_every_weight_alike(shape, layer):
    """Where each weight multiplies equally often, half of the weights are half of the work."""
    model = keras.Sequential([keras.Input(shape), layer])
    (before,) = tfprune.layer_costs(model)
    for weight in layer.trainable_weights:
        if len(weight.shape) > 1:
            array = np.ones(weight.shape, "float32").ravel()
            array[::2] = 0
            weight.assign(array.reshape(weight.shape))
    (after,) = tfprune.layer_costs(model)
    if isinstance(layer, layers.SeparableConv2D):
        places = before.macs // (3 * 3 * 4 + 4 * 5)
        assert after.effective_macs == places * (18 + 10)
    else:
        assert after.effective_macs == before.macs // 2
    assert after.macs == before.macs == before.effective_macs


def test_attention_keeps_its_products_of_places():
    inputs = keras.Input((6, 8))
    layer = layers.MultiHeadAttention(2, 4, name="attention")
    model = keras.Model(inputs, layer(inputs, inputs))
    for weight in layer.trainable_weights:
        if "kernel" in weight.path:
            weight.assign(np.zeros(weight.shape))
    (row,) = tfprune.layer_costs(model)
    assert row.zeros == row.prunable == 4 * 8 * 8
    # Scores and means: 6 x 6 pairs of places, in 2 heads, 4 numbers each.
    assert row.effective_macs == 2 * 6 * 6 * 2 * 4
    assert row.macs == row.effective_macs + 6 * 4 * 64


def test_a_layer_called_twice_multiplies_twice():
    layer = layers.Dense(4, name="shared")
    one, two = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([one, two], layers.Add()([layer(one), layer(two)]))
    (row,) = tfprune.layer_costs(model)
    assert (row.macs, row.parameters) == (32, 20)


def test_shrunk_models_are_matched_by_name():
    model = build()
    half = tfprune.ConstantSparsity.one_shot(0.5)
    masked = tfprune.prune_low_magnitude(model, half, pattern="filter")
    tfprune.UpdatePruningStep(masked)
    small = tfprune.shrink(masked)
    found = tfprune.compare(model, small, formats=[], latency=False)
    conv = change(found, "conv")
    assert (conv.before.shape, conv.after.shape) == ((6, 6, 8), (6, 6, 4))
    assert "6x6x8 → 6x6x4" in str(found)


def test_layers_that_come_and_go():
    one = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="a"), layers.Dense(4, name="b")]
    )
    other = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(4, name="a"),
            layers.Dense(3, name="new"),
            layers.Dense(4, name="c"),
        ]
    )
    found = tfprune.compare(one, other, formats=[], latency=False)
    assert [item.layer for item in found.layers] == ["a", "new", "c", "b"]
    assert change(found, "b").after is None and change(found, "new").before is None
    assert found.totals["parameters"] == (40, 20 + 15 + 16)
    assert "none" in str(found)


def test_files_have_the_sizes_of_files(tmp_path):
    model = build()
    pruned = tfprune.pruners.one_shot(model, 0.9)
    formats = ["keras", "litert", "int8 litert"]
    found = tfprune.compare(model, pruned, data=None, formats=formats, latency=False)
    # There are no inputs to find ranges with.
    assert list(found.files) == ["keras", "litert"]
    for name, file in (("keras", "m.keras"), ("litert", "m.tflite")):
        for measured, part in zip(found.files[name], (model, pruned), strict=True):
            raw = tfprune.export(part, tmp_path / file).path.read_bytes()
            # Archives hold times, which make them differ by a few bytes once compressed.
            assert abs(measured.raw - len(raw)) <= 16
            assert abs(measured.gzipped - len(gzip.compress(raw, 9))) <= 64
            assert measured.note == ""
    before, after = found.files["keras"]
    assert after.raw == before.raw and after.gzipped < 0.7 * before.gzipped


def in_litert(path, x):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(made["index"])


def test_int8_with_data(tmp_path):
    model = build()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    pruned = tfprune.pruners.one_shot(model, 0.9)
    x, y = data()
    found = tfprune.compare(model, pruned, (x, y), formats=["keras", "int8 litert"], latency=False)
    before, after = found.files["int8 litert"]
    same = {name: pair[0] for name, pair in found.metrics.items()}
    assert found.files["keras"][0].metrics == pytest.approx(same, rel=1e-4)
    path = tfprune.export(model, tmp_path / "m.tflite", quantize="int8", data=x, samples=32).path
    outputs = in_litert(path, x)
    assert before.metrics["accuracy"] == pytest.approx(np.mean(outputs.argmax(-1) == y))
    loss = -np.log(np.clip(outputs[np.arange(len(y)), y], 1e-7, 1)).mean()
    assert before.metrics["loss"] == pytest.approx(loss, rel=1e-3)
    assert after.raw <= before.raw < found.files["keras"][0].raw / 2
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    assert {name: pair[0] for name, pair in found.metrics.items()} == pytest.approx(expected)
    copy = tfprune.strip_pruning(pruned)
    copy.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    expected = copy.evaluate(x, y, verbose=0, return_dict=True)
    assert {name: pair[1] for name, pair in found.metrics.items()} == pytest.approx(expected)
    assert not pruned.compiled


def test_a_format_that_cannot_be_written_says_why(monkeypatch):
    model = build()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = tfprune.compare(model, model, formats=["keras", "litert"], latency=False)
    before, _ = found.files["litert"]
    assert before.raw is None and "tfprune[litert]" in before.note
    assert found.files["keras"][0].raw > 0
    assert "litert, before: Expected" in str(found)


def test_each_part_of_a_table_that_is_split_says_which_row_is_which():
    model = build()
    found = tfprune.compare(model, model, formats=["keras"], batch_size=[1, 2, 4, 8], runs=1)
    text = as_text(*shown(comparison_tables(found)), width=80)
    files = text[: text.index("Before and after")]
    for side in ("before", "after"):
        assert len(re.findall(f"│ (keras, )?{side}", files)) == files.count("┃ File") > 1
    assert max(map(len, text.splitlines())) <= 80


def test_latency_of_both():
    found = tfprune.compare(build(), build(), formats=[], runs=4, batch_size=2)
    assert [(item.runs, item.batch_size) for item in found.latency] == [(4, 2), (4, 2)]
    assert "1 thread, median (quartiles) of 4 runs of predict_on_batch, batch size 2" in str(found)


def test_each_file_is_timed_in_its_runtime():
    model = build()
    formats = ["keras", "litert", "onnx"]
    found = tfprune.compare(model, model, formats=formats, runs=2, batch_size=[1, 4])
    runtimes = {"keras": "Keras", "litert": "LiteRT", "onnx": "ONNX Runtime"}
    for name, pair in found.files.items():
        for file in pair:
            assert [latency.runtime for latency in file.latency.values()] == [runtimes[name]] * 2
            assert list(file.latency) == [1, 4] and file.latency[4].batch_size == 4
    text = str(found)
    assert text.index("The files that ship") < text.index("Before and after")
    assert found.latency[0].batch_size == 1 and "Milliseconds, batch 4" in found.markdown()
    assert {"host", "processor", "date", "keras"} <= found.machine.keys()


def test_files_that_the_user_has(tmp_path):
    model = build()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.save(tmp_path / "m.keras")
    paths = [tmp_path / "one.tflite", tmp_path / "two.onnx"]
    for path in paths:
        tfprune.export(model, path)
    found = tfprune.compare(tmp_path / "m.keras", paths[1], data(), formats=["onnx"], runs=2)
    before, after = found.files["onnx"]
    assert after.raw == paths[1].stat().st_size
    assert after.metrics == pytest.approx(before.metrics) and found.layers == []
    assert found.metrics["accuracy"][1] == after.metrics["accuracy"]
    assert after.latency[1].runtime == "ONNX Runtime"
    found = tfprune.compare(*paths, latency=False)
    assert found.files["litert"][0].raw == paths[0].stat().st_size
    assert found.files["litert"][1].raw is None
    found.html(tmp_path / "page.html")
    with pytest.raises(ValueError, match="neither of which is compiled"):
        tfprune.compare(*paths, data())


def test_the_loss_of_a_file_has_the_penalties_of_its_own_weights():
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(5, kernel_regularizer="l2")]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    pruned = tfprune.pruners.one_shot(model, 0.9)
    found = tfprune.compare(model, pruned, data(), formats=["keras"], latency=False)
    losses = tuple(file.metrics["loss"] for file in found.files["keras"])
    assert losses == pytest.approx(found.metrics["loss"], rel=1e-5)


def test_files_take_bytes_as_keras_does():
    model = build()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = data()
    # So small that no probability is rounded to zero, where Keras and a file differ in the loss.
    images = (np.abs(x) * 2).astype("uint8")
    expected = model.evaluate(images, y, verbose=0, return_dict=True)
    found = tfprune.compare(model, model, (images, y), formats=["litert", "onnx"], latency=False)
    for pair in found.files.values():
        assert pair[0].metrics == pytest.approx(expected, rel=1e-4)


def test_nothing_is_claimed_where_latencies_overlap_or_sizes_hardly_differ():
    def side(low, median, high, size):
        latency = tfprune.Latency(median, low, high, 9, 1, 1, "LiteRT")
        return ShippedFile(size, 50, "", {1: latency})

    def printed(old, new):
        files = {"litert": (side(*old), side(*new))}
        return str(tfprune.Comparison((build(), build()), [], files, None, {}))

    text = printed((1.0, 1.2, 1.4, 10_000), (1.3, 1.5, 1.7, 10_003))
    assert "no clear change" in text
    assert not any(word in text for word in ("slower", "faster", "larger", "smaller"))
    text = printed((1.0, 1.2, 1.4, 10_000), (1.5, 1.8, 2.0, 12_000))
    assert "1.50x slower" in text and "1.20x larger" in text


def test_a_quantized_file_that_is_slower_is_marked():
    def side(seconds):
        latency = tfprune.Latency(seconds, seconds, seconds, 9, 1, 1, "LiteRT")
        return ShippedFile(100, 50, "", {1: latency})

    files = {
        "litert": (side(1.0), side(0.5)),
        "dynamic litert": (side(1.02), side(1.0)),
        "int8 litert": (side(0.4), side(0.3)),
    }
    text = str(tfprune.Comparison((build(), build()), [], files, None, {}))
    assert "dynamic litert, after: SLOWER than litert in float, 2.00 times as long" in text
    assert text.count("SLOWER") == 1 and "2.00x faster" in text


def test_the_page_of_a_shrunk_model_shows_channels():
    model = build()
    small = tfprune.remove_channels(model, {"conv": [0, 1, 2]})
    found = tfprune.compare(model, small, formats=[], latency=False)
    assert [title for title, _ in html._pictures(found)] == ["Channels of the layers"]
    assert "Sparsity" not in found.markdown().partition("### Layers")[2]


def test_models_are_not_changed():
    model = build()
    model.compile("adam", "sparse_categorical_crossentropy")
    weights = [weight.copy() for weight in model.get_weights()]
    pruned = tfprune.pruners.one_shot(model, 0.5)
    tfprune.compare(model, pruned, data(), formats=["keras"], runs=2)
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True))
    assert tfprune.sparsity_report(pruned).sparsity == pytest.approx(0.5, abs=0.01)
    assert not pruned.compiled and "wrapped" not in str(tfprune.sparsity_report(pruned))


def test_as_data_and_as_markdown():
    model = build()
    found = tfprune.compare(model, tfprune.pruners.one_shot(model, 0.5), formats=["keras"], runs=2)
    again = json.loads(json.dumps(found.to_dict()))
    assert again["totals"]["zeros"] == list(found.totals["zeros"])
    assert again["layers"][0]["after"]["sparsity"] == 0.5
    assert again["files"]["keras"][0]["raw"] == found.files["keras"][0].raw
    assert again["latency"][0]["runs"] == 2
    text = found.markdown()
    for block in re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.strip().splitlines()}
        assert len(widths) == 1
    assert "| conv | Conv2D | 6x6x8 | 224 | 7,776 | 0 → 108 | 0.00% → 50.00% |" in text


def test_one_page_that_needs_nothing_else(tmp_path):
    model = build()
    model.name = "a<b>model"
    pruned = tfprune.pruners.one_shot(model, 0.5)
    found = tfprune.compare(model, pruned, formats=["keras"], latency=False)
    path = found.html(tmp_path / "page.html")
    text = path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
    assert not re.search(r"(src|href)=\"(?!data:)", text) and "<script" not in text
    assert "<b>model" not in text and "&lt;b&gt;model" in text
    assert text.count("data:image/png;base64,") == 2
    assert all(name in text for name in ("conv", "bn", "last", "50.00%"))


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (TypeError, "`formats` to be a list", {"formats": "keras"}),
        (ValueError, "one of 'keras'", {"formats": ["zip"]}),
        (ValueError, "a compiled model", {"data": data()}),
        (ValueError, "read again", {"data": iter([data()]), "compiled": True}),
        (ValueError, "as \\(x, y\\)", {"data": (data()[0],), "compiled": True}),
        (ValueError, "`data` with at least one batch", {"data": data(0), "compiled": True}),
        (ValueError, "runs", {"runs": 0}),
    ],
)
def test_bad_arguments(error, match, arguments):
    model = build()
    if arguments.pop("compiled", False):
        model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(error, match=match):
        tfprune.compare(model, model, **{"formats": [], **arguments})


def test_no_models(tmp_path):
    model = build()
    with pytest.raises(TypeError, match="Keras 3"):
        tfprune.compare(model, 3)
    with pytest.raises(ValueError, match="does not exist"):
        tfprune.compare(model, "model.keras")
    with pytest.raises(ValueError, match="built"):
        tfprune.compare(keras.Sequential([layers.Dense(2)]), model)
    found = tfprune.compare(model, model, formats=[], latency=False)
    with pytest.raises(ValueError, match="can be written"):
        found.html(tmp_path / "missing" / "page.html")
