"""The rows of a batch that belong to one image."""

import keras
import numpy as np
import tensorflow as tf

from tf_mskd.methods.common import rows


def test_rows_of_one_image_follow_each_other():
    first, second = np.arange(6).reshape(3, 2), 10 + np.arange(6).reshape(3, 2)
    got = rows.interleave([keras.ops.array(first), keras.ops.array(second)])
    expected = [[0, 1], [10, 11], [2, 3], [12, 13], [4, 5], [14, 15]]
    assert got.numpy().tolist() == expected


def test_targets_are_repeated_with_their_shape_and_dtype(digits):
    images = digits[0]
    targets = {"label": tf.constant([4, 7], tf.int32), "image": tf.constant(images[:2])}
    got = rows.repeat(targets, 3)
    assert got["label"].numpy().tolist() == [4, 4, 4, 7, 7, 7]
    assert got["label"].dtype == tf.int32 and got["image"].dtype == tf.uint8
    np.testing.assert_array_equal(got["image"], images[:2].repeat(3, axis=0))


def test_the_first_rows_undo_the_repetition():
    targets = {"label": tf.constant([4, 7]), "vector": tf.constant([[1.0], [2.0]])}
    got = rows.first_rows(rows.repeat(targets, 3), 3)
    assert list(got) == ["label", "vector"]
    for name, value in targets.items():
        np.testing.assert_array_equal(got[name], value)
