"""The weights that a run starts from: those of another run's network."""

import keras

from tf_mskd.utils.errors import UserError


def copy_weights(source: keras.Model, target: keras.Model) -> list[keras.Layer]:
    """Copies weights by layer name from one model to another.

    Args:
        source: model whose layers with weights must all be in `target`.
        target: model that gets the values; layers only it has keep theirs.

    Returns:
        list of the layers of `target` that got weights.

    Raises:
        UserError: if a layer is missing in `target` or has other shapes.
    """
    layers = {layer.name: layer for layer in target.layers}
    given = []
    for layer in source.layers:
        if not layer.weights:
            continue
        mate = layers.get(layer.name)
        shapes = [tuple(w.shape) for w in layer.weights]
        if mate is None or [tuple(w.shape) for w in mate.weights] != shapes:
            raise UserError(
                f"The starting network {source.name!r} does not fit {target.name!r}: "
                f"layer {layer.name!r} with shapes {shapes} has no match. Use the same "
                "--model, --taps, --width and --vgg_taps in both flagfiles."
            )
        mate.set_weights(layer.get_weights())
        given.append(mate)
    return given
