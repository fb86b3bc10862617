"""Schedules written for tensorflow_model_optimization."""

import keras

from tfprune.schedules.base import PruningSchedule, serialize


@keras.saving.register_keras_serializable(package="tfprune")
class AdoptedSchedule(PruningSchedule):
    """Adapter for a custom subclass of tfmot's `PruningSchedule`.

    `prune_low_magnitude` wraps such a schedule automatically.

    Args:
        schedule: The schedule to adapt.

    Example:

    >>> tfprune.schedules.get(tfprune.Cosine(0.0, 0.5, 0, 10)).frequency
    100
    """

    def __init__(self, schedule):
        self.schedule = schedule
        for name in ("begin_step", "end_step", "frequency"):
            if hasattr(schedule, name):
                setattr(self, name, getattr(schedule, name))

    def __call__(self, step):
        return self.schedule(step)

    def get_config(self):
        return {"schedule": serialize(self.schedule)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["schedule"]))


def is_tfmot_schedule(schedule):
    """Decides by the class's ancestors: importing tfmot would switch `tf.keras` for the process."""
    return any(
        base.__name__ == "PruningSchedule"
        and base.__module__.startswith("tensorflow_model_optimization")
        for base in type(schedule).__mro__
    )
