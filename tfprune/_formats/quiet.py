"""Silences the loggers of converters."""

import logging
from contextlib import contextmanager


@contextmanager
def without_log():
    """Silences TensorFlow, which logs the temporary folders of its converters."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
