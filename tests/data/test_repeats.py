"""Repeated augmentation: which images and views an epoch has, and that it resumes."""

import numpy as np
import pytest
import tensorflow as tf

from tf_mskd.data import pipeline
from tf_mskd.data.augment import make_augment
from tf_mskd.data.mixing import Mixing
from tf_mskd.data.order import epoch_order, epoch_views
from tf_mskd.data.sources import load_source
from tf_mskd.utils.errors import UserError


def stream(digits, ids, start=0, stop=27, **changes):
    arguments = {
        "batch_size": 16,
        "seed": 3,
        "augment": make_augment("crop,flip,erase"),
        "repeats": 3,
        **changes,
    }
    return pipeline.train_stream(
        digits.train, ids, start_step=start, num_steps=stop, **arguments
    )


@pytest.mark.parametrize("repeats", [1, 2, 3, 5])
def test_an_epoch_has_part_of_the_images_each_so_many_times(repeats):
    ids = np.arange(100, 117)
    for epoch in range(3):
        order = epoch_order(ids, 7, epoch, repeats)
        whole = np.random.default_rng([7, epoch]).permutation(ids)
        by_hand = [i for i in whole for _ in range(repeats)][: len(ids)]
        np.testing.assert_array_equal(order, by_hand)
    np.testing.assert_array_equal(epoch_order(ids, 7, 2), whole)


def test_no_two_views_of_a_run_are_equal():
    views = np.concatenate([epoch_views(epoch, 3) for epoch in range(50)])
    assert sorted(views) == list(range(150))
    assert epoch_views(4).tolist() == [4] and epoch_views(4, views=3).tolist() == [1]
    for epoch in range(8):
        assert len(set(epoch_views(epoch, repeats=3, views=4))) == 3


@pytest.mark.parametrize("views", [0, 4])
def test_each_repeat_is_the_view_of_its_number(digits, ids, views):
    augment, per_epoch = make_augment("crop,flip,erase"), 9
    seen = {}
    for step, (images, targets) in enumerate(stream(digits, ids, views=views)):
        index = targets["index"].numpy()
        epoch, first = divmod(step, per_epoch)
        for row, i in enumerate(index):
            repeat = (16 * first + row) % 3
            view = (3 * epoch + repeat) % views if views else 3 * epoch + repeat
            plain = digits.train.images[i : i + 1]
            expected = augment(plain, index[row : row + 1], 3, view)[0]
            np.testing.assert_array_equal(images[row], expected)
            seen.setdefault((epoch, i), []).append(view)
    counts = [len(repeats) for repeats in seen.values()]
    assert max(counts) == 3 and np.mean(np.equal(counts, 3)) > 0.9
    assert all(len(set(repeats)) == len(repeats) for repeats in seen.values())


def test_a_stream_of_repeats_resumes_with_all_that_goes_with_it(digits, ids):
    changes = {
        "mixing": Mixing(0.4, 1.0, num_classes=10),
        "target_keys": ("other_image", "second_view"),
        "second_augment": make_augment("crop"),
    }
    whole = list(stream(digits, ids, **changes))
    for start in (1, 9, 14):
        rest = stream(digits, ids, start, **changes)
        for a, b in zip(whole[start:], rest, strict=True):
            tf.nest.map_structure(np.testing.assert_array_equal, a, b)


def test_label_maps_follow_the_view_of_their_repeat():
    maps = load_source("nuclei", image_size=32).train
    augment = make_augment("crop,flip,rotate")
    options = {"batch_size": 8, "seed": 1, "augment": augment, "repeats": 2}
    made = pipeline.train_stream(
        maps, np.arange(16), start_step=1, num_steps=2, **options
    )
    ((images, targets),) = made
    index = targets["index"].numpy()
    for view in (0, 1):
        rows = index[view::2]
        moved = augment.maps(tf.constant(maps.labels[rows], tf.int32), rows, 1, view)
        np.testing.assert_array_equal(targets["label"][view::2], moved)
        expected = augment(maps.images[rows], rows, 1, view)
        np.testing.assert_array_equal(images[view::2], expected)


def test_mistakes_are_refused(digits, ids):
    with pytest.raises(UserError, match="repeats must be a whole number >= 1, got 0"):
        stream(digits, ids, repeats=0)
    with pytest.raises(UserError, match=r"repeats must be .* got 1\.5"):
        stream(digits, ids, repeats=1.5)
    with pytest.raises(UserError, match="different views, 2, got 3: the repeats"):
        stream(digits, ids, views=2)
