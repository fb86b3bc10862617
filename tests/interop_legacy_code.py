"""Classes as a user wrote them for tf_keras and tfmot; run where models with them are read."""

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras


class Mix(tf_keras.layers.Layer, tfmot.sparsity.keras.PrunableLayer):
    """A product with two matrices; the second one is prunable."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.first = self.add_weight("first", (input_shape[-1], self.units), initializer="ones")
        self.second = self.add_weight("second", (self.units, self.units))
        super().build(input_shape)

    def call(self, inputs):
        return tf.matmul(tf.matmul(inputs, self.first), self.second)

    def get_prunable_weights(self):
        return [self.second]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Stairs(tfmot.sparsity.keras.PruningSchedule):
    """A quarter of the sparsity more every `every` steps."""

    def __init__(self, sparsity, every):
        self.sparsity, self.every = sparsity, every

    def __call__(self, step):
        stairs = tf.minimum(tf.cast(step // self.every, tf.float32), 4.0)
        return tf.equal(step % self.every, 0), self.sparsity * stairs / 4.0

    def get_config(self):
        return {
            "class_name": "Stairs",
            "config": {"sparsity": self.sparsity, "every": self.every},
        }
