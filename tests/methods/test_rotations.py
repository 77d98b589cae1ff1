"""The four rotations of each image and their crops."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_mskd import UserError
from tf_mskd.methods.common import rotations


@pytest.fixture
def images(digits):
    return digits[0][:5]


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_rotations_are_those_of_numpy(images, dtype):
    got = rotations.rotations(tf.constant(images.astype(dtype)))
    assert got.dtype == dtype and got.shape == (20, 8, 8, 1)
    for i, image in enumerate(images):
        for r in range(4):
            expected = np.rot90(image, r)
            np.testing.assert_array_equal(got[4 * i + r], expected, f"{i} {r}")


def test_rotation_keeps_the_shape_known_in_a_graph():
    signature = tf.TensorSpec([None, 8, 8, 3], tf.uint8)
    graph = tf.function(rotations.rotations, input_signature=[signature])
    assert graph.get_concrete_function().outputs[0].shape.as_list() == [None, 8, 8, 3]


def test_images_that_are_not_square_are_refused():
    with pytest.raises(UserError, match="needs square images, got 4x6: set --image_si"):
        rotations.rotations(tf.zeros([2, 4, 6, 3]))


def windows(image, padding):
    """All crops of an image padded with zeros, as bytes."""
    border = ((padding, padding), (padding, padding), (0, 0))
    padded, (high, wide) = np.pad(image, border), image.shape[:2]
    return {
        padded[y : y + high, x : x + wide].tobytes(): (y, x)
        for y in range(2 * padding + 1)
        for x in range(2 * padding + 1)
    }


def test_a_crop_is_a_window_of_the_zero_padded_image():
    image = np.arange(1, 25, dtype=np.uint8).reshape(2, 4, 3)
    seed = keras.random.SeedGenerator(0)
    got = rotations.random_crop(tf.constant(np.stack([image] * 400)), 1, seed).numpy()
    assert got.dtype == np.uint8 and got.shape == (400, 2, 4, 3)
    known = windows(image, 1)
    places = [known[row.tobytes()] for row in got]
    assert {y for y, _ in places} == {x for _, x in places} == {0, 1, 2}
    assert abs(np.corrcoef(np.transpose(places))[0, 1]) < 0.2  # one draw for each side


def test_every_step_draws_other_crops_also_in_a_graph(images):
    seed = keras.random.SeedGenerator(0)
    signature = tf.TensorSpec([None, 8, 8, 1], tf.uint8)
    crop = tf.function(
        lambda x: rotations.random_crop(x, 3, seed), input_signature=[signature]
    )
    first, second = crop(images).numpy(), crop(images).numpy()
    assert not np.array_equal(first, second)
    seed.state.assign([0, 0])
    np.testing.assert_array_equal(crop(images), first)


def test_no_padding_is_no_crop(images):
    got = rotations.random_crop(tf.constant(images), 0, keras.random.SeedGenerator(0))
    np.testing.assert_array_equal(got, images)


def test_upright_and_turned_rows_share_out_all_rows():
    rows = keras.ops.arange(12)
    assert rotations.upright(rows).numpy().tolist() == [0, 4, 8]
    assert rotations.turned(rows).numpy().tolist() == [1, 2, 3, 5, 6, 7, 9, 10, 11]
    maps = keras.ops.reshape(keras.ops.arange(48), (12, 2, 2))
    np.testing.assert_array_equal(rotations.turned(maps)[3], maps[5])


def test_joint_labels_are_class_major():
    got = rotations.joint_labels(np.repeat([1, 2], 4).astype("int64"))
    assert got.numpy().tolist() == [4, 5, 6, 7, 8, 9, 10, 11]
