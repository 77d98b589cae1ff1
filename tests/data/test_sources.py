"""Built-in digits, splits and the checks that every source goes through."""

import numpy as np
import pytest
from sklearn import datasets

from tests.data import real_data
from tf_mskd.data.arrays import check_labels, check_memory
from tf_mskd.data.sources import Source, Split, load_source, split_ids
from tf_mskd.data.summary import describe
from tf_mskd.utils.errors import UserError

LABELS = np.repeat(np.arange(4, dtype=np.int32), [10, 20, 30, 40])


def test_digits_are_all_there_and_scaled_to_bytes():
    source = load_source("digits")
    assert source.num_classes == 10 and source.image_shape == (8, 8, 1)
    images = np.concatenate([source.train.images, source.test.images])
    assert images.dtype == np.uint8 and source.train.labels.dtype == np.int32
    counts = np.round(images[..., 0] / (255 / 16)).astype(int)
    original = datasets.load_digits().images.astype(int)
    assert sorted(map(bytes, counts)) == sorted(map(bytes, original))
    share = np.bincount(source.test.labels) / np.bincount(
        np.concatenate([source.train.labels, source.test.labels])
    )
    assert np.all(np.abs(share - 0.2) < 0.01)


def test_digits_are_the_same_at_every_call_and_resize():
    first, second = load_source("digits"), load_source("digits")
    assert np.array_equal(first.train.images, second.train.images)
    assert load_source("digits", image_size=12).image_shape == (12, 12, 1)


def test_split_is_stratified_disjoint_and_complete():
    train, validation = split_ids(LABELS, validation_fraction=0.2)
    assert np.array_equal(np.bincount(LABELS[validation]), [2, 4, 6, 8])
    assert np.array_equal(np.sort(np.concatenate([train, validation])), range(100))
    assert train.dtype == validation.dtype == np.int64


def test_split_is_pure_and_depends_on_the_seed():
    def draw(seed):
        return split_ids(LABELS, validation_fraction=0.2, seed=seed)

    np.random.seed(1)
    first = draw(3)
    np.random.seed(2)
    assert all(map(np.array_equal, first, draw(3)))
    assert not np.array_equal(first[1], draw(4)[1])


def test_smaller_training_part_is_nested_and_keeps_validation():
    kwargs = {"validation_fraction": 0.3, "seed": 5}
    whole, validation = split_ids(LABELS, **kwargs)
    half, same = split_ids(LABELS, train_fraction=0.5, **kwargs)
    tenth, _ = split_ids(LABELS, train_fraction=0.1, **kwargs)
    assert np.array_equal(validation, same)
    assert set(tenth) < set(half) < set(whole)
    assert np.array_equal(np.bincount(LABELS[half]), [4, 7, 10, 14])


def test_every_class_keeps_at_least_one_example():
    train, validation = split_ids(
        LABELS, validation_fraction=0.01, train_fraction=0.001
    )
    assert set(LABELS[train]) == set(LABELS[validation]) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"validation_fraction": 1.0}, r"validation_fraction must be in \[0, 1\)"),
        ({"validation_fraction": -0.1}, r"got -0\.1"),
        ({"validation_fraction": float("nan")}, "got nan"),
        ({"train_fraction": 0.0}, r"train_fraction must be in \(0, 1\], got 0\.0"),
        ({"train_fraction": 1.5}, r"got 1\.5"),
        ({"seed": -1}, "seed of a split must be >= 0, got -1"),
        ({"validation_fraction": 0.99}, r"leaves class 0 \(10 examples\) nothing"),
    ],
)
def test_bad_fractions_are_refused(kwargs, message):
    with pytest.raises(UserError, match=message):
        split_ids(LABELS, **kwargs)


def test_split_of_nothing_is_refused():
    with pytest.raises(UserError, match="train split has no examples"):
        split_ids([])


@pytest.mark.parametrize("size", [0, -3, 2.5, True, "8"])
def test_bad_image_size_is_refused(size):
    with pytest.raises(UserError, match="image_size must be a whole number"):
        load_source("digits", image_size=size)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resize": "crp"}, "Unknown resize 'crp'; did you mean 'crop'"),
        (
            {"test_fraction": 0.2},
            "is for the data set 'folder'; 'digits' has a te",
        ),
        ({"test_fraction": 1.0}, r"test_fraction must be in \[0, 1\), got 1\.0"),
        ({"test_fraction": float("nan")}, "got nan"),
    ],
)
def test_settings_that_cannot_be_obeyed_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        load_source("digits", **settings)


def test_what_was_read_is_one_printable_line():
    split = Split(np.zeros((3, 2, 4, 1), np.uint8), {"label": np.array([0, 1, 1])})
    source = Source("own", split, split, ("a\nb", "c"), ("1 of 6 resized",))
    assert describe(source) == (
        r"data own: train 3 images (a\nb 1, c 2), test 3 (a\nb 1, c 2), 2x4x1; "
        "1 of 6 resized"
    )


def test_label_out_of_range_is_named_with_its_position():
    with pytest.raises(UserError, match="got 7 at position 2 of split 'train'"):
        check_labels("own", "train", np.array([0, 4, 7, -1]), 5)
    with pytest.raises(UserError, match="got -1 at position 0 of split 'test'"):
        check_labels("own", "test", np.array([-1]), 5)


def test_set_beyond_the_memory_is_refused_before_decoding():
    message = r"needs 150\.5 GB .*1000000 images of 224x224x3.*10\.0 GB.*--image_size"
    with pytest.raises(UserError, match=message):
        check_memory("big", 1_000_000, (224, 224, 3), available=10e9)
    check_memory("small", 1000, (32, 32, 3), available=10e9)


def test_cifar100_as_prepared_by_tfds():
    source = load_source("cifar100", real_data.cifar100_dir())
    assert source.train.images.shape == (50_000, 32, 32, 3)
    assert source.test.images.shape == (10_000, 32, 32, 3)
    assert np.array_equal(np.bincount(source.train.labels), [500] * 100)
    assert np.array_equal(np.bincount(source.test.labels), [100] * 100)
    assert source.class_names[:2] == ("apple", "aquarium_fish")
    # The published channel means of the training images.
    mean = source.train.images.mean((0, 1, 2)) / 255
    assert np.allclose(mean, [0.5071, 0.4866, 0.4409], atol=2e-4)
