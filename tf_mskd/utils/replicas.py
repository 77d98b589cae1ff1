"""Sums, joins and means over the replicas that share a step."""

import typing

import keras
from keras import ops


def num_replicas() -> int:
    """Returns how many replicas share the current step; 1 outside TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def all_reduce_sum(value: typing.Any) -> typing.Any:
    """Sums a tensor over all replicas; the identity with one replica."""
    if num_replicas() == 1:
        return value
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value) if context else value


def all_gather(value: typing.Any) -> typing.Any:
    """Joins the rows of a tensor [B, ...] of all replicas, in one order everywhere.

    The identity with one replica. No gradient flows through it.
    """
    value = ops.stop_gradient(ops.convert_to_tensor(value))
    if num_replicas() == 1:
        return value
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context.all_gather(value, axis=0) if context else value


def replica_mean(
    per_example: typing.Any, sample_weight: typing.Any = None
) -> typing.Any:
    """Sums to the mean of w_b * x_b over the global batch when replicas are added up.

    sum_b w_b * x_b / (rows in the batches of all replicas)

    As in Keras, weights scale the rows and do not divide: weights of 2 double it, and
    of a batch whose weights are all 0 it is 0. Optimizers add gradients over replicas,
    so this is what a loss must return to give the update of one device, for ragged
    batches and weights too.

    Args:
        per_example: float [B], the local part of the batch.
        sample_weight: float [B] or None for ones.

    Returns:
        float scalar.

    Example:
        >>> float(replica_mean([1.0, 3.0], [1.0, 3.0]))
        5.0
    """
    per_example = ops.convert_to_tensor(per_example)
    ones = weight = ops.ones_like(per_example)
    if sample_weight is not None:
        weight = ops.cast(sample_weight, per_example.dtype)
    return ops.sum(per_example * weight) / all_reduce_sum(ops.sum(ones))
