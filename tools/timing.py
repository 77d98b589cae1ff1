"""Timing of training steps: compiled loops, interleaved, medians."""

import statistics
import time

CIFAR_IMAGES = 50_000


def interleave(cases, repeats, steps):
    """Times every case once a round; returns a dict, name -> seconds a step by round.

    Args:
        cases: dict, name -> function of the number of steps that runs them and waits.
        repeats: int > 0, rounds; one more goes first for tracing.
        steps: int > 0, steps per call.
    """
    times = {name: [] for name in cases}
    for case in cases.values():
        case(1)
    for _ in range(repeats):
        for name, case in cases.items():
            start = time.perf_counter()
            case(steps)
            times[name].append((time.perf_counter() - start) / steps)
    return times


def medians(times):
    """Median seconds of every case."""
    return {name: statistics.median(values) for name, values in times.items()}


def ratio(times, name, *parts):
    """Median over the rounds of a case's seconds by the sum of the parts' seconds.

    A shared host is about as fast for all of a round, and another in the next one.
    """
    rounds = zip(times[name], *(times[part] for part in parts), strict=True)
    return statistics.median(value / sum(others) for value, *others in rounds)


def digits_batch(batch_size, side=32):
    """Real digits enlarged to CIFAR's size: (uint8 [B, side, side, 3], int32 [B])."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images[:batch_size].repeat(side // 8, 1).repeat(side // 8, 2)
    images = (images[..., None].repeat(3, -1) * 15).astype("uint8")
    return images, digits.target[:batch_size].astype("int32")


def step_case(step, stream, done):
    """A function of n that runs n training steps in one compiled call.

    Args:
        step: function of a batch, a Keras `train_step`.
        stream: `tf.data.Dataset` of batches, long enough.
        done: function without arguments that waits for the steps.
    """
    import tensorflow as tf

    step = tf.autograph.experimental.do_not_convert(step)
    batches = iter(stream)

    @tf.function
    def train(batches, n):
        for _ in tf.range(n):
            step(next(batches))

    return lambda n: (train(batches, tf.constant(n)), done())


def training_case(distiller, stream):
    """Training steps of a `Distiller`; one batch in place of a stream repeats."""
    import tensorflow as tf

    from tf_mskd import SGD

    if not isinstance(stream, tf.data.Dataset):
        stream = tf.data.Dataset.from_tensors(stream).repeat()
    distiller.compile(SGD(0.01, l2=5e-4), jit_compile=False)
    distiller.optimizer.build(distiller.trainable_variables)
    done = distiller.optimizer.iterations.numpy
    return step_case(distiller.train_step, stream, done)


def forward_case(model, batch):
    """Inference passes of a model over one batch."""
    import tensorflow as tf

    images = tf.constant(batch[0])

    @tf.function
    def forward(n):
        total = 0.0
        for _ in tf.range(n):
            outputs = model(images, training=False)
            total += tf.add_n([tf.reduce_sum(v) for v in outputs.values()])
        return total

    return lambda n: float(forward(tf.constant(n)))
