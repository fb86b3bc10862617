"""What all tests share."""

import gc
import itertools
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


import keras
import numpy as np
import pytest
import tfmot_truth
from hypothesis import settings
from truth_support import run_without_backend

# The same examples in every run; a busy machine is no reason to fail.
settings.register_profile("tfprune", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("explore", deadline=None, max_examples=3000)
settings.load_profile("tfprune")


_TORN_DOWN = itertools.count(1)

# Fixtures that take long and are made once for several tests.
COSTLY = ("tfmot", "setup", "whole", "trained", "folder", "moved")


# Before pytest-xdist reads the marks.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Where processes share the tests, those with the same costly fixture go to the same one."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            for name in set(COSTLY) & set(item.fixturenames):
                group = name if name == "tfmot" else f"{name} of {item.path.name}"
                item.add_marker(pytest.mark.xdist_group(group))


def set_aside():
    """What lives now is not looked through again when `clear_session` collects garbage.

    TensorFlow alone has hundreds of thousands of objects, and keeps thousands for each `fit`.
    """
    gc.collect()
    gc.freeze()


def pytest_collection_finish(session):
    set_aside()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item):
    """After the fixtures have gone."""
    if next(_TORN_DOWN) % 20 == 0:
        set_aside()


@pytest.fixture
def fresh():
    """For files whose tests draw random numbers and build models anew: the same seed for each."""
    keras.utils.set_random_seed(7)
    yield
    keras.backend.clear_session()


@pytest.fixture(scope="session")
def tfmot(tmp_path_factory):
    """The answers of tfmot, by key; asked once, in a separate process.

    Importing tfmot sets TF_USE_LEGACY_KERAS for the whole process.
    """
    path = tmp_path_factory.mktemp("tfmot") / "truth.npz"
    run_without_backend(tfmot_truth.__file__, path)
    with np.load(path) as answers:
        return dict(answers)
