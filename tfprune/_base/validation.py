"""Argument checks with one style of message: expected value, received value, remedy."""

import math
import numbers
import re
from collections.abc import Hashable
from contextlib import contextmanager

import numpy as np

# The largest step in schedules and files: JAX's integers and the step in a `tf.train.Checkpoint`
# have 32 bits.
MOST_STEPS = 2**31 - 1

_RAISED = re.compile(r"^\s*(?:\w+\.)*\w*(?:Error|Exception): *(\S.*)", re.MULTILINE)


def message(expected, received, mend):
    """Builds an error message in tfprune's one format.

    Args:
        expected: The valid values, without the word "Expected".
        received: The value passed in, usually `name=value`.
        mend: A sentence that tells the user how to fix it.

    Returns:
        One string.
    """
    return f"Expected {expected}. Received: {received}. {mend}"


def deserialized(name, config, mend):
    """Returns the object of a serialized form, or raises ValueError if it cannot be created."""
    import keras

    reason: Exception
    try:
        return keras.saving.deserialize_keras_object(config)
    except (ValueError, TypeError) as error:
        if "Expected " in str(error) and "Received: " in str(error):
            raise
        reason = error
    except (LookupError, AttributeError, ImportError, RecursionError) as error:
        reason = error
    received = f"one that fails: {first_line(reason)}"[:200]
    raise ValueError(message(f"the serialized form of a {name}", received, mend)) from reason


def first_line(error):
    """Returns the first line of an error's text for a message, or its class if it has no text.

    Skips the line that Keras adds in front of errors from a layer's code, and the stack that
    TensorFlow adds in front of errors in a compiled function.
    """
    text = re.sub(r"\x1b\[\d*m", "", str(error)).strip()
    if text.startswith("in user code:"):
        for raised in _RAISED.finditer(text):
            text = text[raised.start(1) :]
            break
    lines = text.splitlines()
    if lines and lines[0].startswith("Exception encountered when calling"):
        lines = [line for line in lines[1:] if line.strip()] or lines
    return lines[0].strip() if lines else type(error).__name__


@contextmanager
def reading_config(name):
    """Context for using a config; one of another form raises an error that says so."""
    try:
        yield
    except (LookupError, AttributeError, RecursionError, TypeError, ValueError) as error:
        said = str(error)
        # Keras's own words on classes that it does not know, and on code that it does not trust.
        is_theirs = isinstance(error, (TypeError, ValueError)) and any(
            words in said for words in ("Expected ", "deserializ", "Could not locate", "safe_mode")
        )
        ours = said.startswith(("Unrecognized keyword", "Unknown `config`"))
        if is_theirs or (isinstance(error, ValueError) and not ours):
            raise
        raise ValueError(
            message(
                f"the config of a {name} as get_config() gives it",
                f"one that fails: {type(error).__name__}: {said}"[:200],
                "The file is damaged or was made by something else: load another one.",
            )
        ) from error


def integer(name, value, minimum, mend):
    """Returns `value` as an `int`, or raises if it is not a whole number of at least `minimum`."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.bool_))
    if not whole and isinstance(value, (numbers.Real, np.floating)):
        whole = not isinstance(value, (bool, np.bool_)) and float(value).is_integer()
    if not whole and isinstance(value, np.ndarray) and value.ndim == 0:
        return integer(name, value[()], minimum, mend)
    if not whole:
        raise TypeError(message(f"`{name}` to be a whole number", f"{name}={value!r}", mend))
    if value < minimum:
        raise ValueError(message(f"`{name}` to be at least {minimum}", f"{name}={value!r}", mend))
    return int(value)


def step(name, value, minimum, mend):
    """Returns the number of an optimizer step as an `int`, or raises unless it has 32 bits."""
    number = integer(name, value, minimum, mend)
    if number > MOST_STEPS:
        raise ValueError(
            message(
                f"`{name}` to be at most {MOST_STEPS}",
                f"{name}={number!r:.40}",
                "Steps are counted in 32 bits; no training takes so many.",
            )
        )
    return number


def positive(name, value, mend):
    """Returns `value`, or raises ValueError if it is not a finite number above 0."""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not (number and 0 < value < math.inf):
        raise ValueError(message(f"`{name}` to be a positive number", f"{name}={value!r}", mend))
    return value


def sparsity(name, value, minimum=0.0):
    """Returns `value` as a `float`, or raises if it is not a fraction in [minimum, 1)."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (numbers.Real, np.floating)):
        raise TypeError(
            message(
                f"`{name}` to be a number in [0, 1)",
                f"{name}={value!r}",
                "Give the fraction of zeros, for instance 0.9.",
            )
        )
    number = float(value)
    if math.isfinite(number) and 1 < number <= 100:
        mend = f"Sparsity is a fraction, not a percentage: did you mean {number / 100:g}?"
    elif number == 1:
        mend = "A sparsity of 1 would remove every weight: choose a value below 1."
    else:
        mend = "Give the fraction of zeros, for instance 0.9."
    if not minimum <= number < 1:
        raise ValueError(
            message(f"`{name}` to be a fraction in [{minimum:g}, 1)", f"{name}={value!r}", mend)
        )
    return number


def choice(name, value, allowed):
    """Returns `value`, or raises if it is not one of `allowed`."""
    # An array compares entry by entry, and its answer is no truth value.
    if not isinstance(value, Hashable) or value not in allowed:
        listed = ", ".join(repr(option) for option in allowed)
        raise ValueError(
            message(f"`{name}` to be one of {listed}", f"{name}={value!r}", "Choose one of these.")
        )
    return value
