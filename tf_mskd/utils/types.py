"""Names for the types in signatures; docstrings say the shapes and dtypes."""

import typing

Tensor = typing.Any  # of any Keras backend, or what converts to one
Tensors = dict[str, Tensor]  # by output or target name
Shapes = dict[str, tuple]  # likewise, with None for the batch
Network = typing.Callable[[Tensor], Tensors]  # images -> outputs
