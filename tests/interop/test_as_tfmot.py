"""Programs in tfmot's way give what tfmot gives on tf_keras, or differ as the guide says."""

import json

import keras
import pytest
import tfmot_programs
from tfmot_programs import PROGRAMS, answers_of
from truth_support import run_without_backend

import tfprune

# tfmot's answer and this library's: rows of "Different on purpose" in docs/guide/from_tfmot.md.
DIFFERENT = {"n_of_m_with_a_layer_that_does_not_fit": (["one", "fits"], ["fits"])}


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    path = tmp_path_factory.mktemp("truth") / "answers.json"
    run_without_backend(tfmot_programs.__file__, path)
    return json.loads(path.read_text())


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")
@pytest.mark.filterwarnings("ignore:Expected a model with wrapped layers")
@pytest.mark.filterwarnings("ignore:.*which are not pruned")
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="asks TensorFlow")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_gives_what_it_gives_with_tfmot(name, truth):
    (found,) = answers_of(keras, tfprune, [name]).values()
    assert (truth[name], found) == DIFFERENT.get(name, (truth[name], truth[name]))
    assert "Error" not in str(truth[name])
