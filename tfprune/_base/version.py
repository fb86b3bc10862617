"""The version, which setup.cfg and the command read without importing Keras."""

__version__ = "0.1.0"
