"""One number from many replicas: the exact mean, and strategies by name."""

import keras
from keras import ops

from tf_mskd.errors import UserError, unknown_name

STRATEGIES = ("auto", "one_device", "mirrored")


def num_replicas():
    """Returns how many replicas share the current step; 1 outside TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def all_reduce_sum(value):
    """Sums a tensor over all replicas; the identity with one replica."""
    if num_replicas() == 1:
        return value
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value) if context else value


def replica_mean(per_example, sample_weight=None):
    """Sums to the weighted mean over the global batch when replicas are added up.

    sum_b w_b * x_b / (sum of w over the batches of all replicas)

    Optimizers add gradients over replicas, so this is what a loss must return to give
    the update of one device, for ragged batches and weights too.

    Args:
        per_example: float [B], the local part of the batch.
        sample_weight: float [B] or None for ones.

    Returns:
        float scalar.

    Example:
        >>> float(replica_mean([1.0, 3.0], [1.0, 3.0]))
        2.5
    """
    per_example = ops.convert_to_tensor(per_example)
    if sample_weight is None:
        weight = ops.ones_like(per_example)
    else:
        weight = ops.cast(sample_weight, per_example.dtype)
    return ops.sum(per_example * weight) / all_reduce_sum(ops.sum(weight))


def create_strategy(name="auto", num_devices=0):
    """Creates the TensorFlow strategy called `name`.

    Args:
        name: "auto" (all GPUs, or the CPU where there is none), "one_device", or
            "mirrored" (all devices of the best kind, CPUs included).
        num_devices: int, how many devices to use; 0 takes all. With no GPU and
            "mirrored", the CPU is split into that many logical devices (for tests).

    Returns:
        `tf.distribute.Strategy`.

    Raises:
        UserError: for an unknown name, or more devices than there are.
    """
    import tensorflow as tf

    if name not in STRATEGIES:
        raise unknown_name("strategy", name, STRATEGIES)
    # asking for logical devices starts the runtime, after which no CPU can be split
    if tf.config.list_physical_devices("GPU"):
        devices = tf.config.list_logical_devices("GPU")
    else:
        devices = _logical_cpus(num_devices if name == "mirrored" else 1)
    if num_devices > len(devices):
        raise UserError(
            f"--num_devices={num_devices} devices were asked for, {len(devices)} are "
            f"usable with --strategy={name}: lower it, or 0 for all."
        )
    devices = [d.name for d in devices[: num_devices or None]]
    if name == "one_device" or (name == "auto" and len(devices) == 1):
        return tf.distribute.OneDeviceStrategy(devices[0])
    return tf.distribute.MirroredStrategy(devices)


def _logical_cpus(count):
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    if count > 1:
        parts = [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
        try:
            tf.config.set_logical_device_configuration(cpu, parts)
        except RuntimeError:  # already split, or TensorFlow already in use
            pass
    return tf.config.list_logical_devices("CPU")
