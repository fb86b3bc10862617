"""The copies of a variable that the replicas of a `tf.distribute` strategy hold."""

import keras


def has_copies(variable):
    """Whether each replica of a strategy holds a copy of a variable, all of them equal."""
    if keras.backend.backend() != "tensorflow":
        return False
    return type(variable.value).__name__ == "MirroredVariable"


def in_each_replica(variable, function):
    """Runs a function once for each copy of a variable in this process, where the copy lies.

    Variables of the same strategy are read and assigned there as that replica's copies.
    `Strategy.run` gives the same, but TensorFlow warns of its overhead unless the function is one
    graph; a mask update reads counts on the host in between.

    Args:
        variable: Keras variable.
        function: Function of the number of the copy, from 0.

    Returns:
        List of what the function returned; for a variable without copies, of one call.
    """
    if not has_copies(variable):
        return [function(0)]
    found: list = []

    def run(_):
        found.append(function(len(found)))

    value = variable.value
    value.distribute_strategy.extended.update(value, run, group=False)
    return found
