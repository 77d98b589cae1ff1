"""Students of mixed precision, made again in float32: their files would need Flex."""

import keras

from tf_mskd.utils.errors import UserError
from tf_mskd.utils.private import all_layers


def in_float32(model):
    """The model itself, or one of float32 layers and the same weights.

    Args:
        model: functional model.

    Returns:
        functional model whose layers all compute in float32.

    Raises:
        UserError: if a layer cannot be made again from its configuration.
    """
    if all(layer.compute_dtype == "float32" for layer in all_layers(model)):
        return model
    try:
        config = _replaced(keras.saving.serialize_keras_object(model))
        made = keras.saving.deserialize_keras_object(config)
        made.set_weights(model.get_weights())
    except Exception as error:  # whatever a custom layer raises
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{model.name} computes in mixed precision and cannot be made again in "
            f"float32: {reason}. Build it in float32 and set its weights."
        ) from error
    return made


def _replaced(config):
    """A configuration with every dtype policy set to float32."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return {**config, "config": {"name": "float32"}}
        return {key: _replaced(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_replaced(value) for value in config)
    return config
