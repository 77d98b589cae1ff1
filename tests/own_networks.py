"""Networks as a user of the command line writes them: functions in a module."""

import keras


@keras.saving.register_keras_serializable("tests")
class Doubled(keras.layers.Layer):
    """A layer that a file can hold."""

    def call(self, x):
        return 2 * x


class Unregistered(keras.layers.Layer):
    """A layer that no file can hold: its argument is not in its configuration."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return self.factor * x


@keras.saving.register_keras_serializable("tests")
class Quadratic(keras.layers.Layer):
    """A layer whose cost nobody knows."""

    def build(self, shape):
        self.kernel = self.add_weight((shape[-1], shape[-1]))

    def call(self, x):
        return x * (x @ self.kernel)


def small(num_classes, input_shape, last=None):
    """Two stages and logits."""
    image = keras.Input(input_shape)
    x = keras.layers.Rescaling(1 / 128, -1)(image)
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="one")(x)
    x = Doubled()(keras.layers.MaxPooling2D()(x))
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="two")(x)
    x = keras.layers.Dense(num_classes, last)(keras.layers.Flatten()(x))
    return keras.Model(image, x, name="small")


def probabilities(num_classes, input_shape):
    """A teacher that ends in its softmax."""
    return small(num_classes, input_shape, "softmax")


def normalized(num_classes, input_shape):
    """A network with a batch norm, ending in a map."""
    image = keras.Input(input_shape)
    x = keras.layers.Conv2D(4, 3)(image)
    return keras.Model(image, keras.layers.BatchNormalization(name="norm")(x))


def unreadable(num_classes, input_shape):
    """A network that its file cannot give back."""
    plain = small(num_classes, input_shape)
    return keras.Model(plain.input, Unregistered(2.0)(plain.output))


def quadratic(num_classes, input_shape):
    """A network with a layer of unknown cost."""
    plain = small(num_classes, input_shape)
    return keras.Model(plain.input, Quadratic(name="quadratic")(plain.output))


def failing(num_classes, input_shape):
    """A mistake of the user's own."""
    raise KeyError(f"no network for {num_classes} classes")


def no_model(num_classes, input_shape):
    """Returns something else."""
    return [num_classes, input_shape]


def subclassed(num_classes, input_shape):
    """Returns a model without a graph."""

    class Subclassed(keras.Model):
        """Written as a class."""

    return Subclassed()


NO_FUNCTION = 3
