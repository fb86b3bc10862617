"""Files that Keras 3 saved are no files of tf_keras: the message says how to load them."""

import keras
import numpy as np
import pytest
from keras import layers

import tfprune


@pytest.mark.filterwarnings("ignore:Expected a model with wrapped layers to be saved as .keras")
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("convert", ["from_tfmot", "from_tf_keras"])
def test_a_file_of_keras_3_is_told_from_one_of_tf_keras(convert, suffix, tmp_path):
    path = tmp_path / f"pruned{suffix}"
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    pruned = tfprune.pruners.one_shot(model, 0.5)
    pruned.save(path)
    said = rf"Expected a file that tf_keras saved.*pruned{suffix}.*Keras {keras.__version__}"
    with pytest.raises(ValueError, match=said) as raised:
        getattr(tfprune.interop, convert)(path)
    call = str(raised.value).rpartition("Load it with ")[2].rstrip(".")
    loaded = eval(call, {"keras": keras})
    np.testing.assert_array_equal(loaded(np.eye(4)), pruned(np.eye(4)))
