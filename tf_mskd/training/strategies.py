"""Strategies by name, and what several workers must agree on."""

import contextlib
import json
import os
import re
import typing
from collections.abc import Iterator

from tf_mskd.utils.choices import STRATEGIES
from tf_mskd.utils.errors import UserError, unknown_name

SEED_STRIDE = 1_000_003  # far more than the dropout layers of any network

_workers = None


def create_strategy(name: str = "auto", num_devices: int = 0) -> typing.Any:
    """Creates the TensorFlow strategy called `name`.

    Args:
        name: "auto" (all GPUs, or the CPU where there is none), "one_device", or
            "mirrored" (all devices of the best kind, CPUs included), or "multi_worker"
            (all devices of all machines that the variable TF_CONFIG names).
        num_devices: int, how many devices to use; 0 takes all. With no GPU and
            "mirrored", the CPU is split into that many logical devices (for tests).

    Returns:
        `tf.distribute.Strategy`.

    Raises:
        UserError: for an unknown name, more devices than there are, or "multi_worker"
            without a usable TF_CONFIG.
    """
    import tensorflow as tf

    if name not in STRATEGIES:
        raise unknown_name("strategy", name, STRATEGIES)
    if name == "multi_worker":
        return _multi_worker_strategy()
    # listing logical devices starts the runtime, after which no CPU can be split
    if tf.config.list_physical_devices("GPU"):
        devices = tf.config.list_logical_devices("GPU")
    else:
        devices = _logical_cpus(num_devices if name == "mirrored" else 1)
    if num_devices > len(devices):
        raise UserError(
            f"--num_devices={num_devices} devices requested, {len(devices)} usable "
            f"with --strategy={name}: lower it, or set 0 for all."
        )
    devices = [d.name for d in devices[: num_devices or None]]
    if name == "one_device" or (name == "auto" and len(devices) == 1):
        return tf.distribute.OneDeviceStrategy(devices[0])
    return tf.distribute.MirroredStrategy(devices)


def _multi_worker_strategy():
    import tensorflow as tf

    global _workers
    worker_index()
    if _workers is None:  # one cluster a process; its server cannot start twice
        _workers = tf.distribute.MultiWorkerMirroredStrategy()
    return _workers


def worker_index() -> int:
    """Returns this machine's index in TF_CONFIG; worker 0 is the chief.

    Raises:
        UserError: if the variable is missing or cannot be read.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        index, workers = config["task"]["index"], config["cluster"]["worker"]
        if 0 <= index < len(workers):
            return index
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(
        "--strategy=multi_worker needs the variable TF_CONFIG, such as "
        '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": '
        '{"type": "worker", "index": 0}}, with its own index on each machine; '
        f"got {text!r}."
    )


def is_chief(name: str) -> bool:
    """Whether this process writes the files, under the strategy called `name`."""
    return name != "multi_worker" or worker_index() == 0


def is_multi_worker(strategy: typing.Any) -> bool:
    """Whether the strategy spans several processes."""
    import tensorflow as tf

    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def any_worker(strategy: typing.Any, *claims: bool) -> tuple[bool, ...]:
    """Returns whether any worker makes each claim; every worker must call it."""
    if not is_multi_worker(strategy):
        return claims
    import tensorflow as tf

    local = tf.constant([float(claim) for claim in claims])
    return tuple(_sum_over_workers(strategy, local) > 0)


def check_same_step(strategy: typing.Any, step: int) -> None:
    """Refuses workers that see different checkpoints; every worker must call it.

    Args:
        strategy: `tf.distribute.Strategy`.
        step: int, of the newest checkpoint that this worker sees.

    Raises:
        UserError: on each worker, unless all see the same one.
    """
    if not is_multi_worker(strategy):
        return
    import tensorflow as tf

    total = _sum_over_workers(strategy, tf.constant(step, tf.int64))
    if int(total) != step * strategy.num_replicas_in_sync:
        raise UserError(
            f"This worker's newest checkpoint is of step {step}, another worker's is "
            "not: --run_dir must be one folder that all machines share."
        )


def distributed(
    strategy: typing.Any, stream: typing.Callable[..., typing.Any]
) -> typing.Any:
    """Batches spread over the replicas of a strategy, each worker reading its own rows.

    Where a batch cannot be divided evenly, every worker reads all of it.

    Args:
        strategy: `tf.distribute.Strategy`.
        stream: function of nothing or of `part` (see `pipeline.train_stream`) ->
            `tf.data.Dataset` of batches of one size, or of parts of them.

    Returns:
        an iterable whose elements `strategy.run` takes.
    """
    import tensorflow as tf

    whole = stream()
    if not is_multi_worker(strategy):
        return spread(strategy, whole)
    size = tf.nest.flatten(whole.element_spec)[0].shape[0]
    replicas = strategy.num_replicas_in_sync
    if size % replicas:
        return spread(strategy, whole)

    def of_worker(context):
        part = context.input_pipeline_id, context.num_input_pipelines
        return stream(part=part).rebatch(size // replicas, drop_remainder=True)

    return strategy.distribute_datasets_from_function(of_worker)


def spread(strategy: typing.Any, batches: typing.Any) -> typing.Any:
    """Batches spread over the replicas of a strategy.

    On one CPU they are left as they are: TensorFlow's iterator over several devices
    tunes itself in a thread that each new iterator may wait for, for a second and more.

    Args:
        strategy: `tf.distribute.Strategy`.
        batches: `tf.data.Dataset`.

    Returns:
        an iterable whose elements `strategy.run` takes.
    """
    import tensorflow as tf

    if isinstance(strategy, tf.distribute.OneDeviceStrategy):
        if "CPU" in strategy.extended.worker_devices[0]:
            return batches
    return strategy.experimental_distribute_dataset(batches)


def _sum_over_workers(strategy, value):
    import tensorflow as tf

    value = strategy.run(lambda: tf.identity(value))
    return strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None).numpy()


@contextlib.contextmanager
def explaining_errors(strategy: typing.Any) -> Iterator[None]:
    """Makes a `UserError` of what TensorFlow raises for one, or for a lost worker.

    A `UserError` of the input pipeline, such as a file that cannot be read, comes back
    as an error of TensorFlow's with its text inside.
    """
    import tensorflow as tf

    errors = tf.errors
    try:
        yield
    except (errors.InvalidArgumentError, errors.UnknownError) as error:
        told = re.search(r"^.*UserError: (.+)$", error.message, re.MULTILINE)
        if told is None:
            raise
        raise UserError(told[1]) from error
    except (
        errors.UnavailableError,
        errors.AbortedError,
        errors.InternalError,
    ) as error:
        if not is_multi_worker(strategy):
            raise
        raise UserError(
            "Another worker has stopped. Restart all workers; training resumes from "
            f"the last checkpoint. TensorFlow: {' '.join(error.message.split())[-200:]}"
        ) from error


def spread_seeds(variables: list[typing.Any], strategy: typing.Any) -> None:
    """Gives the random layers of each replica seeds of their own.

    Keras draws the same dropout mask on every replica. Replica r gets the seed of
    replica 0 plus r times a stride; as all count alike, this holds for ever, and a
    checkpoint needs the seed of replica 0 alone.

    Args:
        variables: Keras variables; seeds among them (uint32 [2]) are changed.
        strategy: the `tf.distribute.Strategy` they live under.
    """
    if strategy.num_replicas_in_sync == 1:
        return
    worker = worker_index() if is_multi_worker(strategy) else 0
    for variable in variables:
        if not variable.path.endswith("seed_generator_state"):
            continue
        copies = strategy.experimental_local_results(variable.value)
        base = copies[0].numpy().astype("int64")
        for r, copy in enumerate(copies):
            offset = SEED_STRIDE * (worker * len(copies) + r)
            copy.assign([(base[0] + offset) % 2**32, base[1]])


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
