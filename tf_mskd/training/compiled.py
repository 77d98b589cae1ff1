"""What `compile` is told beside the optimizer: the label loss and further metrics."""

import inspect
import typing
from collections.abc import Callable

import keras
from keras import ops

from tf_mskd.tasks import Task
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.types import Tensor

ACCURACY = ("accuracy", "acc")  # names by which Keras chooses a metric


class ExitMetric(typing.NamedTuple):
    """A metric at one exit or at the ensemble.

    Args:
        exit: str, "exit_k" or "ensemble".
        metric: `keras.metrics.Metric`.
        weighted: bool, whether it reads the sample weights.
    """

    exit: str
    metric: keras.metrics.Metric
    weighted: bool


def label_loss(loss: typing.Any, task: Task) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns the loss of labels and logits, one number for each row.

    Args:
        loss: as for `keras.Model.compile`, one for all exits; None for that
            of the task.
        task: `Task`.

    Returns:
        function of (labels, logits [B, classes]) -> float32 [B].

    Raises:
        UserError: for a loss that reads probabilities, and for one that does not take
            the batch's labels.
    """
    if loss is None:
        return task.label_loss
    if isinstance(loss, list | tuple | dict):
        raise UserError(
            f"compile takes one loss for all exits, got {type(loss).__name__}: pass "
            "one, and weigh the exits with exit_weights."
        )
    found = _found("loss", loss, keras.losses.get)
    _refuse_probabilities("loss", found)
    function = found.call if isinstance(found, keras.losses.Loss) else found

    def per_row(labels, logits):
        logits = ops.cast(logits, "float32")
        try:
            value = ops.cast(function(labels, logits), "float32")
        except (ValueError, TypeError) as error:
            raise UserError(
                f"The loss {_name(found)} given to compile does not take labels "
                f"{tuple(labels.shape)} and logits {tuple(logits.shape)}: "
                f"{' '.join(str(error).split())}"
            ) from error
        rows = tuple(range(1, len(value.shape)))
        return ops.mean(value, axis=rows) if rows else value

    return per_row


def exit_metrics(
    metrics: typing.Any, exits: list[str], weighted: bool, task: Task
) -> list[ExitMetric]:
    """Returns a metric for every exit and every metric that `compile` is given.

    Args:
        metrics: a metric as for `keras.Model.compile`, a list of them, or None.
        exits: list of str, the exits and "ensemble".
        weighted: bool, whether they read the sample weights.
        task: `Task`, whose own figure is measured without being asked for.

    Returns:
        list of `ExitMetric`, named "exit_k_name".

    Raises:
        UserError: for an unknown metric, one that reads probabilities, and a dict.
    """
    if isinstance(metrics, dict):
        raise UserError(
            "compile takes metrics as a list, each is measured at every exit and at "
            "the ensemble, got a dict."
        )
    metrics = metrics if isinstance(metrics, list | tuple) else [metrics]
    metrics = [m for m in metrics if m is not None and not _is_measured(m, task)]
    return [
        ExitMetric(name, _copy(metric, name), weighted)
        for metric in metrics
        for name in exits
    ]


def _is_measured(metric, task):
    if metric in ACCURACY and task.step_metric != ACCURACY[0]:
        raise UserError(
            f"Task {task.name!r} has no metric {metric!r}: {task.step_metric} is "
            "always measured, pass others as objects of keras.metrics."
        )
    return metric in ACCURACY


def _copy(metric, exit_name):
    found = _found("metric", metric, keras.metrics.get)
    _refuse_probabilities("metric", found)
    if not isinstance(found, keras.metrics.Metric):
        name = f"{exit_name}_{_name(found)}"
        return keras.metrics.MeanMetricWrapper(found, name=name)
    name = metric if isinstance(metric, str) else found.name
    config = {**found.get_config(), "name": f"{exit_name}_{name}"}
    return type(found).from_config(config)


def _found(kind, given, get):
    try:
        found = get(given)
    except (ValueError, TypeError):
        found = None
    if not callable(found):
        raise UserError(
            f"Unknown {kind} {given!r} in compile: pass a name of keras.{kind}"
            f"{'es' if kind == 'loss' else 's'}, an object or a function of (labels, "
            "logits)."
        )
    return found


def _refuse_probabilities(kind, found):
    if hasattr(found, "get_config"):
        from_logits = found.get_config().get("from_logits", True)
    else:
        parameters = inspect.signature(found).parameters
        given = parameters.get("from_logits")
        from_logits = given is None or given.default
    if from_logits is False:
        raise UserError(
            f"The {kind} {_name(found)} given to compile reads probabilities, exits "
            f"make logits: pass an object of keras.{kind}"
            f"{'es' if kind == 'loss' else 's'} with from_logits=True."
        )


def _name(found):
    return found.name if hasattr(found, "name") else str(found.__name__)
