"""Names of parts. Imports only the standard library, so that `.ci/generate` runs without
Keras."""

import re


def in_lower_case(name):
    """Returns a class name in lower case with underscores: "n_of_m" for "NOfM"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
