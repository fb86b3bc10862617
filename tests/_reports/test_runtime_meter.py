"""Models as files of one runtime, written and measured there."""

import keras
import pytest
from keras import layers

import tfprune
from tfprune._reports.runtime_meter import RuntimeMeter


@pytest.mark.parametrize(
    ("runtime", "name"),
    [("keras", "Keras"), ("litert", "LiteRT"), ("onnx", "ONNX Runtime")],
)
def test_models_that_were_never_called_are_measured_where_they_ship(runtime, name):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.Dense(2)])
    small = tfprune.remove_channels(model, {model.layers[0].name: [0]})
    with RuntimeMeter(runtime, threads=1, batch_size=2) as meter:
        found = meter.measure({None: model, 0.5: small}, runs=3)
        again = meter.measure({None: model}, runs=3)
    for latency in (*found.values(), *again.values()):
        assert (latency.runtime, latency.batch_size, latency.runs) == (name, 2, 3)
        assert 0 < latency.low <= latency.median


def test_unknown_runtimes():
    with pytest.raises(ValueError, match="`runtime` to be one of 'keras'"):
        RuntimeMeter("tensorrt")
