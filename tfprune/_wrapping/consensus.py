"""The state of ADMM for a weight: variables of the wrapper, so that the model saves them."""

import keras
import numpy as np
from keras import ops

from tfprune import _keras
from tfprune._base import validation as check


class Consensus:
    """The pull of a weight towards a pattern, as variables.

    The loss gets `rho / 2 * ||weight - aim||^2`, where `aim` is Z - U: Z is the weight on the
    pattern, U the scaled dual variable. As long as `rho` is 0, nothing pulls.

    Args:
        owner: The wrapper; it creates the variables.
        name: Beginning of their names.
        variable: The weight.
    """

    def __init__(self, owner, name, variable):
        kept = {"dtype": "float32", "initializer": "zeros", "trainable": False, "autocast": False}
        shape = tuple(variable.shape)
        with _keras.laid_out_like(variable):
            self.aim = owner.add_weight(name=f"{name}_aim", shape=shape, **kept)
            self.dual = owner.add_weight(name=f"{name}_dual", shape=shape, **kept)
        with _keras.everywhere(axes=0):
            self.rho = owner.add_weight(name=f"{name}_rho", shape=(), **kept)
        self._variable = variable
        self._pull = Pull(self.aim, self.rho, variable.regularizer)
        variable.regularizer = self._pull

    @property
    def variables(self):
        """The variables, in the order in which they are saved."""
        return [self.aim, self.dual, self.rho]

    def detach(self):
        """Leaves the weight with the regularizer that it had before."""
        self._variable.regularizer = self._pull.user

    def save(self, store, position):
        """Writes the variables into a Keras store."""
        for name, variable in zip(("aim", "dual", "rho"), self.variables, strict=True):
            store[f"consensus_{name}_{position}"] = _keras.host_array(variable)

    def read(self, store, position, name):
        """Returns `(variable, value)` pairs of what `save` wrote; raises if it does not fit."""
        pairs = []
        for part, variable in zip(("aim", "dual", "rho"), self.variables, strict=True):
            key = f"consensus_{part}_{position}"
            value = np.asarray(store[key]) if key in store else None
            if value is None or value.shape != tuple(variable.shape):
                raise ValueError(
                    check.message(
                        f"the state of ADMM for {name} in the file",
                        "nothing" if value is None else f"an array of shape {value.shape}",
                        "The file is damaged or belongs to a model with another criterion.",
                    )
                )
            pairs.append((variable, value))
        return pairs


class Pull(keras.regularizers.Regularizer):
    """`rho / 2 * ||weight - aim||^2`, plus the weight's own regularizer.

    Args:
        aim: Variable of the weight's shape.
        rho: Variable, a number.
        user: The regularizer that the weight had already, or `None`.
    """

    def __init__(self, aim, rho, user=None):
        self._aim, self._rho = aim, rho
        self.user = user

    def __call__(self, x):
        x = ops.convert_to_tensor(x)
        away = ops.cast(x, "float32") - ops.convert_to_tensor(self._aim)
        pull = ops.convert_to_tensor(self._rho) / 2 * ops.sum(ops.square(away))
        return pull if self.user is None else pull + ops.cast(self.user(x), "float32")

    def get_config(self):
        return {}
