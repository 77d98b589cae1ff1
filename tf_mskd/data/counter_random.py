"""Random numbers as a hash of (seed, view, example id, draw number).

There is no state: the same four numbers give the same value in any batch, order or
process, so an example's view does not depend on its neighbours and a resumed run
repeats itself exactly. The hash chains the 64-bit finaliser of SplitMix64.

Source: Steele, Lea, Flood, Fast splittable pseudorandom number generators, OOPSLA
2014, with the constants of variant 13 by D. Stafford.
"""

import tensorflow as tf

from tf_mskd.data.counter_constants import FACTORS, GOLDEN, LAST_SHIFT


def example_keys(seed: int, view: int | tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
    """One 64-bit key per example.

    Args:
        seed: int, any sign, taken modulo 2**64.
        view: int64 scalar, the number of the pass over the data, or [B].
        ids: int64 [B], positions of the examples in the train split.

    Returns:
        uint64 [B].
    """
    key = _mix(tf.constant((int(seed) + GOLDEN) % 2**64, tf.uint64))
    key = _mix(key + tf.cast(view, tf.uint64))
    return _mix(key + tf.cast(ids, tf.uint64))


def uniform(keys: tf.Tensor, draw: int) -> tf.Tensor:
    """float32 [B] in [0, 1), on a grid of 2**-24, for draw number `draw` (int >= 0)."""
    bits = tf.bitwise.right_shift(_bits(keys, draw), tf.constant(40, tf.uint64))
    return tf.cast(tf.cast(bits, tf.int32), tf.float32) * 2.0**-24


def integers(keys: tf.Tensor, draw: int, bound: int) -> tf.Tensor:
    """int32 [B] in [0, bound), for draw number `draw`; bias below bound / 2**32."""
    shift = tf.constant(32, tf.uint64)
    high = tf.bitwise.right_shift(_bits(keys, draw), shift)
    product = high * tf.constant(bound, tf.uint64)
    return tf.cast(tf.bitwise.right_shift(product, shift), tf.int32)


def noise(keys: tf.Tensor, draw: int, count: int) -> tf.Tensor:
    """uint8 [B, count], uniform in 0..255, all of draw number `draw` (int >= 0)."""
    places = tf.range(1, -(-count // 8) + 1, dtype=tf.int64)
    steps = tf.cast(places, tf.uint64) * tf.constant(GOLDEN, tf.uint64)
    words = _mix(_bits(keys, draw)[:, None] + steps)  # eight values each
    return tf.reshape(tf.bitcast(words, tf.uint8), [-1, 8 * len(places)])[:, :count]


def _bits(keys, draw):
    """uint64 [B], 64 uniform bits."""
    return _mix(keys + tf.constant((draw + 1) * GOLDEN % 2**64, tf.uint64))


def _mix(z):
    """The finaliser of SplitMix64, a bijection of uint64."""
    for shift, factor in FACTORS:
        z = tf.bitwise.bitwise_xor(z, _shift_right(z, shift))
        z *= tf.constant(factor, tf.uint64)
    return tf.bitwise.bitwise_xor(z, _shift_right(z, LAST_SHIFT))


def _shift_right(z, shift):
    return tf.bitwise.right_shift(z, tf.constant(shift, tf.uint64))
