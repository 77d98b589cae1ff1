"""Where exits branch off a foreign graph: the tapped outputs, and the last map."""

from collections import Counter
from collections.abc import Sequence

import keras

from tf_mskd.models import graph
from tf_mskd.models.nested import nested_names
from tf_mskd.utils.errors import UserError, unknown_name
from tf_mskd.utils.private import node_of
from tf_mskd.utils.types import Tensor


def tap_tensors(
    model: keras.Model, taps: Sequence[str], any_size: bool
) -> list[Tensor]:
    """The outputs of the named layers, in the order given.

    Args:
        model: functional model.
        taps: names of layers, shallow to deep.
        any_size: bool, whether maps of unknown height and width will do.

    Raises:
        UserError: for an unknown layer, one that is called twice, another order, and
            an output that no exit can read.
    """
    nodes = [n for n in graph.calls_to(model.outputs) if not n.is_input]
    by_name = {node.operation.name: node for node in nodes}
    calls = Counter(node.operation.name for node in nodes)
    tapped = []
    for name in taps:
        if name not in by_name:
            raise unknown_name("tap", name, {*by_name, *nested_names(model)})
        if calls[name] > 1:
            raise UserError(
                f"Tap {name!r} is called {calls[name]} times in {model.name}: tap a "
                "layer that is called once."
            )
        tensor = by_name[name].outputs[0]
        _check_tap(name, tensor, any_size)
        later = {id(node) for node in graph.calls_to(tapped)}
        if id(by_name[name]) in later:
            raise UserError(
                f"Taps go from shallow to deep, each once, but {name!r} does not come "
                f"after the taps before it in {taps}. Reorder them."
            )
        tapped.append(tensor)
    return tapped


def _check_tap(name, tensor, any_size):
    rank, unknown = len(tensor.shape), None in tensor.shape[1:]
    if rank == 3 or any_size:
        unknown = tensor.shape[-1] is None
    if rank not in (2, 3, 4) or unknown:
        raise UserError(
            "A tap must be a map [B, H, W, C] of known size, a sequence [B, T, C] or a "
            f"vector [B, C], but {name!r} makes {tuple(tensor.shape)}. Choose another "
            "layer, build the model with a fixed input_shape, or take "
            "exit_head='linear' without attention."
        )


def last_map(end: Tensor, tapped: Sequence[Tensor]) -> Tensor | None:
    """The map or sequence the model ends in, or the last one before its vector.

    A 1x1 map does not count where there is a larger one.

    Args:
        end: symbolic end of the model.
        tapped: symbolic outputs of the taps, shallow to deep.

    Returns:
        symbolic tensor; None where there is none behind the taps.

    Raises:
        UserError: if the last tap is this map itself.
    """
    nodes = [n for n in graph.calls_to([end]) if not n.is_input]
    tensors = [t for node in nodes for t in node.outputs]
    ends = [tapped[-1]] if tapped else []
    before = {id(t) for node in graph.calls_to(ends) for t in node.outputs}
    if end is (tapped[-1] if tapped else None):
        _refuse_last(end)
    for rank in (4, 3):
        grids = [t for t in tensors if len(t.shape) == rank]
        if len(end.shape) != 4:  # some networks keep 1x1 maps after their pooling
            grids = [t for t in grids if tuple(t.shape[1:3]) != (1, 1)] or grids
        grids = [t for t in grids if t.shape[-1] is not None]
        if grids:
            if rank == 4 and any(grids[-1] is t for t in tapped):
                _refuse_last(grids[-1])
            if id(grids[-1]) not in before:
                return grids[-1]
    return None


def _refuse_last(tensor):
    raise UserError(
        f"Tap {node_of(tensor).operation.name!r} is the last map of the model, whose "
        "own end already is the deepest exit. Leave this tap out."
    )
