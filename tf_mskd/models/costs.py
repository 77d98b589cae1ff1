"""What exits cost beside the rest of the network, and the head that is worth it."""

import math
import typing
from collections.abc import Mapping

import keras

from tf_mskd.models import blocks, graph
from tf_mskd.models.backbone import Backbone
from tf_mskd.models.exits import head_map
from tf_mskd.models.macs import macs_of_tensors
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.tables import as_text, count_text
from tf_mskd.utils.types import Tensor
from tf_mskd.utils.warn import warn

STRONGEST_FIRST = ("dense", "separable", "bottleneck")
SHARE = 0.25  # of the rest of the network that an "auto" head may cost


class ExitCost(typing.NamedTuple):
    """Multiply-accumulates of one image.

    Attributes:
        before: int, of the network up to the exit's tap.
        head: int, of the exit's own layers.
        rest: int, of the network behind the tap: what leaving here saves.
    """

    before: int
    head: int
    rest: int

    @property
    def share(self) -> float:
        """The head's cost as a share of the rest's; above 1 leaving saves nothing."""
        return self.head / self.rest if self.rest else math.inf


def exit_costs(model: keras.Model) -> dict[str, ExitCost]:
    """What each exit but the deepest costs beside the rest of the network.

    Args:
        model: functional model of a fixed image size with a dict of exits and the
            layers `feature_k` at their taps, as `add_exits` and `create_model` make.

    Returns:
        dict, exit name -> `ExitCost`, shallow to deep.

    Raises:
        UserError: if an exit has no layer `feature_k`, or MACs cannot be counted.

    Example:
        >>> size = dict(exits="all", width=0.125, exit_head="linear")
        >>> costs = exit_costs(tf_mskd.create_model("resnet10", 10, **size))
        >>> list(costs), costs["exit_1"].head
        (['exit_1', 'exit_2', 'exit_3'], 80)
    """
    made = graph.available_outputs(model)
    *early, last = graph.exit_names(model)
    whole, costs = macs_of_tensors([made[last]]), {}
    for name in early:
        tap = name.replace("exit", "feature")
        if tap not in made:
            raise UserError(
                f"exit_costs needs the layer {tap!r} at the tap of {name!r}: make the "
                "exits with tf_mskd.add_exits."
            )
        before = macs_of_tensors([made[tap]])
        head = macs_of_tensors([made[name]]) - before
        costs[name] = ExitCost(before, head, whole - before)
    return costs


def worthwhile_head(
    k: int, backbone: Backbone, attention: bool, rest: int, share: float = SHARE
) -> str:
    """The strongest kind of head that costs at most a share of the rest.

    Args:
        k: int, number of the exit.
        backbone: `Backbone` with the sizes and widths of all stages.
        attention: bool, whether a mask goes over the map first.
        rest: int, multiply-accumulates of the network behind the tap.
        share: float > 0.

    Returns:
        "dense", "separable", "bottleneck" or, where all are dearer, "linear".
    """
    stage = backbone.stages[k - 1]
    for kind in STRONGEST_FIRST:
        x = keras.Input((*stage.size, stage.width))
        y = head_map(x, k, backbone, kind, attention, 128, blocks.batch_norm)
        if macs_of_tensors([y]) <= share * rest:
            return kind
    return "linear"


def head_for(
    k: int, backbone: Backbone, attention: bool, tap: Tensor, end: Tensor
) -> str:
    """The "auto" head: `worthwhile_head`, or "linear" where costs cannot be counted.

    Args:
        k, backbone, attention: see `worthwhile_head`.
        tap: symbolic map that the exit reads.
        end: symbolic end of the network.
    """
    try:
        rest = macs_of_tensors([end]) - macs_of_tensors([tap])
        return worthwhile_head(k, backbone, attention, rest)
    except UserError:  # `tell_costs` says which layer
        return "linear"


def tell_costs(model: keras.Model, heads: Mapping[str, str], verbose: bool) -> None:
    """Prints what the exits cost; warns of those that cost more than they save.

    Args:
        model: see `exit_costs`.
        heads: exit name -> kind of its head.
        verbose: bool; False prints no table.
    """
    try:
        costs = exit_costs(model)
    except UserError as error:
        if verbose:
            print(f"The costs of the exits are not known: {error}")
        return
    if verbose and costs:
        print(_table(costs, heads))
    dear = [name for name, cost in costs.items() if cost.share > 1]
    if dear:
        warn(
            f"the head of {', '.join(dear)} costs more than leaving there saves, the "
            "rest of the network: tap a shallower layer, or take exit_head='auto'."
        )


def _table(costs, heads):
    rows = [["exit", "head", "MACs before", "of the head", "saved", "head / saved"]]
    for name, cost in costs.items():
        counts = map(count_text, (cost.before, cost.head, cost.rest))
        rows.append([name, heads[name], *counts, f"{100 * cost.share:.0f} %"])
    return as_text(rows)
