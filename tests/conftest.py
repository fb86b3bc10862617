"""What all tests share."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


import numpy as np
import pytest
import tfmot_truth
from hypothesis import settings
from truth_support import run_without_backend

# The same examples in every run; a busy machine is no reason to fail.
settings.register_profile("tfprune", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("explore", deadline=None, max_examples=3000)
settings.load_profile("tfprune")


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


def pytest_collection_finish(session):
    """TensorFlow's own objects, a million, stay: `clear_session` need not look through them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tfmot(tmp_path_factory):
    """What tfmot itself answers, by key; asked once, in a process of its own.

    Importing tfmot sets TF_USE_LEGACY_KERAS for the whole process.
    """
    path = tmp_path_factory.mktemp("tfmot") / "truth.npz"
    run_without_backend(tfmot_truth.__file__, path)
    with np.load(path) as answers:
        return dict(answers)
