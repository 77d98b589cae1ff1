"""SGD as the published codes run it, and the optimizers of a run by name."""

import typing

import keras
from keras import ops

from tf_mskd.utils.choices import OPTIMIZERS
from tf_mskd.utils.errors import unknown_name


@keras.saving.register_keras_serializable(package="tf_mskd")
class SGD(keras.optimizers.Optimizer):
    """Stochastic gradient descent with PyTorch's momentum and coupled L2.

    g <- g + l2 * w;  v <- momentum * v + g;  w <- w - lr * v
    Nesterov: w <- w - lr * (g + momentum * v)

    Keras' own SGD differs twice: `weight_decay` is decoupled (about 1 / (1 - momentum)
    times weaker at the same number), and the rate sits inside the velocity, so that a
    few steps after a drop of the rate are larger. Every trainable variable is decayed,
    scales, offsets and biases included, as in the CRD benchmark.

    Args:
        learning_rate: float or Keras schedule.
        momentum: float in [0, 1).
        nesterov: bool.
        l2: float >= 0, adds l2 * w to the gradient. Unitless; papers use 1e-4, 5e-4.

    Attributes:
        rate_factors: dict, id of a variable -> factor on its rate; set before `build`.

    Source: Tian, Krishnan, Isola, ICLR 2020 (arXiv 1910.10699), training code.

    Example:
        >>> w = keras.Variable([1.0])
        >>> SGD(0.1, momentum=0.0, l2=0.5).apply([[0.0]], [w])
        >>> round(float(w[0]), 3)
        0.95
    """

    def __init__(
        self,
        learning_rate: typing.Any = 0.05,
        momentum: float = 0.9,
        nesterov: bool = False,
        l2: float = 0.0,
        name: str = "sgd",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum, self.nesterov, self.l2 = momentum, nesterov, l2
        self.rate_factors = {}

    def build(self, variables):
        """Creates one velocity per variable."""
        if self.built:
            return
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")
        self._factors = [self.rate_factors.get(id(v), 1.0) for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        """Updates one variable by one step."""
        index = self._get_variable_index(variable)
        rate = ops.cast(learning_rate, variable.dtype) * self._factors[index]
        gradient = ops.cast(gradient, variable.dtype) + self.l2 * variable
        velocity = self.velocities[index]
        new_velocity = self.momentum * velocity + gradient
        self.assign(velocity, new_velocity)
        step = new_velocity
        if self.nesterov:
            step = gradient + self.momentum * new_velocity
        self.assign_sub(variable, rate * step)

    def get_config(self):
        """Returns the constructor's arguments."""
        arguments = {
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "l2": self.l2,
        }
        return {**super().get_config(), **arguments}


def create_optimizer(
    kind: str,
    learning_rate: typing.Any,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    ema: float = 0.0,
    clip_norm: float = 0.0,
    accumulate_steps: int = 1,
) -> keras.optimizers.Optimizer:
    """Creates an optimizer by name.

    Keras evaluates a schedule at every step, also at those that only add up gradients,
    so that its length is that of the run with and without them.

    Args:
        kind: "sgd" (`SGD`), or Keras' "adamw", "adam", "lion" or "muon".
        learning_rate: float or Keras schedule.
        momentum, nesterov, l2: of `SGD`.
        weight_decay: float >= 0, decoupled: w <- w - rate * weight_decay * w; of adamw,
            lion and muon.
        ema: float in [0, 1), decay per step of the average of the weights, which
            `averaged_weights` lends; 0 for none.
        clip_norm: float >= 0, largest norm of the gradient of all variables; 0 for any.
        accumulate_steps: int >= 1, steps whose gradients are averaged for an update.

    Returns:
        Keras optimizer, not built; its name is `kind`, as checkpoints keep the
        variables' paths.

    Raises:
        UserError: for an unknown name.

    Example:
        >>> create_optimizer("lion", 1e-4, weight_decay=0.5).weight_decay
        0.5
    """
    options: dict[str, typing.Any] = {
        "name": kind,
        "use_ema": ema > 0,
        "ema_momentum": ema,
        "global_clipnorm": clip_norm or None,
    }
    if accumulate_steps > 1:
        options["gradient_accumulation_steps"] = accumulate_steps
    if kind == "sgd":
        return SGD(learning_rate, momentum, nesterov, l2, **options)
    if kind == "adam":
        return keras.optimizers.Adam(learning_rate, **options)
    options["weight_decay"] = weight_decay
    if kind == "adamw":
        return keras.optimizers.AdamW(learning_rate, **options)
    if kind == "lion":
        return keras.optimizers.Lion(learning_rate, **options)
    if kind == "muon":
        return keras.optimizers.Muon(
            learning_rate, adam_weight_decay=weight_decay, **options
        )
    raise unknown_name("optimizer", kind, OPTIMIZERS)
