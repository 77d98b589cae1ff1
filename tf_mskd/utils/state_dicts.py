"""What surrounds the weights in a file of PyTorch; without PyTorch or TensorFlow."""

import typing
from collections.abc import Mapping

WRAPPERS = ("model", "state_dict")


def unwrap(checkpoint: Mapping[str, typing.Any]) -> dict[str, typing.Any]:
    """The state dict inside a checkpoint, without the prefix of data parallelism.

    Args:
        checkpoint: mapping, the state dict or one that holds it as "model" or
            "state_dict".

    Returns:
        dict of tensors by name, none starting with "module.".

    Example:
        >>> unwrap({"epoch": 3, "model": {"module.fc.bias": 0}})
        {'fc.bias': 0}
    """
    for key in WRAPPERS:
        if isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
    return {
        name.removeprefix("module.") if isinstance(name, str) else name: value
        for name, value in checkpoint.items()
    }
