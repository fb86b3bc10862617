"""Conversion of models from other libraries."""

from tfprune.interop.migrate import from_tf_keras, from_tfmot

__all__ = ["from_tf_keras", "from_tfmot"]
