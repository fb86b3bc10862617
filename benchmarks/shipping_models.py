"""Networks of the benchmarks of files that ship."""

import keras
from accuracy_tasks import small_resnet

layers = keras.layers


def mobile_net(blocks=((16, 2), (24, 2), (24, 1), (40, 2), (40, 1), (40, 1)), head=440):
    """MobileNetV2's blocks for CIFAR-10: 103 k parameters."""

    def normalized(x, activation=True):
        x = layers.BatchNormalization()(x)
        return layers.ReLU(6.0)(x) if activation else x

    inputs = keras.Input((32, 32, 3))
    x = normalized(layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs))
    for width, stride in blocks:
        y = normalized(layers.Conv2D(6 * x.shape[-1], 1, use_bias=False)(x))
        y = layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False)(y)
        y = normalized(layers.Conv2D(width, 1, use_bias=False)(normalized(y)), activation=False)
        x = layers.Add()([x, y]) if stride == 1 and width == x.shape[-1] else y
    x = normalized(layers.Conv2D(head, 1, use_bias=False)(x))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def vgg():
    """Eight layers of at most 128 channels, for CIFAR-10."""
    inputs = x = keras.Input((32, 32, 3))
    for width in (32, 64, 128):
        for _ in range(2):
            x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.MaxPooling2D()(x)
    x = layers.Dense(128, activation="relu")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(10)(x))


def keyword_spotter():
    """A depthwise-separable network on spectrograms, as for microcontrollers."""
    inputs = keras.Input((49, 10, 1))
    x = layers.Conv2D(64, (10, 4), 2, padding="same", activation="relu")(inputs)
    for _ in range(4):
        x = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
        x = layers.Conv2D(64, 1, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(12)(layers.GlobalAveragePooling2D()(x)))


def perceptron():
    """A ranking network of dense layers."""
    inputs = x = keras.Input((256,))
    for width in (512, 256, 128):
        x = layers.Dense(width, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(1)(x))


def transformer(width=128, heads=4, length=32):
    """Two blocks of an encoder that normalizes before each part."""
    inputs = keras.Input((length, 32))
    x = layers.Dense(width)(inputs)
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(heads, width // heads)(y, y)
        y = layers.LayerNormalization()(x)
        x = x + layers.Dense(width)(layers.Dense(4 * width, activation="relu")(y))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


NETWORKS = {
    "MobileNetV2-like": mobile_net,
    "ResNet-20": small_resnet,
    "VGG, 8 layers": vgg,
    "keyword spotter": keyword_spotter,
    "perceptron": perceptron,
    "Transformer": transformer,
}
