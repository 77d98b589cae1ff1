"""The moving average of the weights, kept by the optimizer beside the raw ones."""

import contextlib
from collections.abc import Iterator

import keras
from keras import ops


def use_averages(distiller: keras.Model) -> None:
    """Replaces the weights that training changes by their averages, if there are any.

    Args:
        distiller: compiled `Distiller`, its optimizer built with all its trainable
            variables; `use_ema` of the optimizer tells whether it averages.
    """
    if _averages(distiller.optimizer):
        distiller.optimizer.finalize_variable_values(distiller.trainable_variables)


@contextlib.contextmanager
def averaged_weights(distiller: keras.Model) -> Iterator[None]:
    """Lends the averages within the context; then the raw weights come back.

    Statistics of batch norms are averages of their own and stay.

    Args:
        distiller: see `use_averages`.
    """
    if not _averages(distiller.optimizer):
        yield
        return
    variables = distiller.trainable_variables
    raw = [variable.numpy() for variable in variables]
    use_averages(distiller)
    try:
        yield
    finally:
        for variable, value in zip(variables, raw, strict=True):
            variable.assign(value)


def _averages(optimizer):
    # mixed_float16 wraps the optimizer into one that scales the loss
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    # before the first update the averages are 0, or the raw weights
    return optimizer.use_ema and int(ops.convert_to_numpy(optimizer.iterations)) > 0
