"""Examples of other classes: what is drawn, and how a stream delivers it."""

import numpy as np
import pytest
import tensorflow as tf

from tf_mskd.data import extra_targets, pipeline
from tf_mskd.data.augment import make_augment
from tf_mskd.data.partners import Partners
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.targets import TARGETS, target_spec

LABELS = np.array([2, 0, 1, 1, 0, 2, 2, 2, 0, 1])
IDS = np.array([9, 1, 2, 4, 5, 6, 7])  # labels 1, 0, 1, 0, 2, 2, 2; 0, 3 and 8 are out
EVERY_KEY = ("negatives", "other_image", "second_view")


def frequencies(draws, expected):
    """Compares counts with equal chances: within five standard deviations."""
    values, counts = np.unique(draws, return_counts=True)
    assert set(values) == set(expected), (values, expected)
    share = 1 / len(expected)
    spread = np.sqrt(draws.size * share * (1 - share))
    assert abs(counts - draws.size * share).max() < 5 * spread, counts


@pytest.mark.parametrize("label", [0, 1, 2])
def test_one_partner_is_uniform_over_all_other_classes(label):
    partners = Partners(LABELS, IDS, seed=0)
    draws = np.concatenate([partners.one(np.full(50, label), s) for s in range(100)])
    assert draws.dtype == np.int64
    frequencies(draws, IDS[LABELS[IDS] != label])


@pytest.mark.parametrize(("label", "count"), [(0, 1), (0, 3), (2, 4)])
def test_each_of_many_is_uniform_over_all_other_classes(label, count):
    partners = Partners(LABELS, IDS, seed=0)
    steps = [partners.many(np.full(4, label), step, count) for step in range(1000)]
    expected = IDS[LABELS[IDS] != label]
    for column in range(count):
        frequencies(np.array(steps)[:, 0, column], expected)
    frequencies(np.array(steps)[:, 3], expected)


def test_many_are_distinct_and_of_other_classes(digits, ids):
    labels = digits.train.labels
    partners = Partners(labels, ids, seed=1)
    most = partners.largest_draw()
    for step, count in enumerate((1, 20, most)):
        batch = labels[np.random.default_rng(step).permutation(ids)[:32]]
        drawn = partners.many(batch, step, count)
        assert drawn.shape == (32, count) and drawn.dtype == np.int32
        assert np.isin(drawn, ids).all()
        assert (labels[drawn] != batch[:, None]).all()
        assert all(len(set(row)) == count for row in drawn.tolist())
        one = partners.one(batch, step)
        assert np.isin(one, ids).all() and (labels[one] != batch).all()


def test_the_largest_draw_is_what_the_largest_class_leaves():
    partners = Partners(LABELS, IDS, seed=0)
    assert partners.largest_draw() == 4  # seven, three of them of class 2
    for label in (0, 1, 2):
        row = partners.many(np.array([label]), 0, 4)[0]
        assert len(set(row.tolist())) == 4 and (LABELS[row] != label).all()
    others = IDS[LABELS[IDS] != 2]
    assert set(partners.many(np.array([2]), 0, 4)[0]) == set(others)


def test_draws_are_a_function_of_seed_and_step(digits, ids):
    labels = digits.train.labels
    batch = labels[ids[:16]]

    def draw(seed, step):
        partners = Partners(labels, ids, seed)
        partners.one(batch, 0)  # what came before does not matter
        return np.column_stack(
            [partners.one(batch, step), partners.many(batch, step, 9)]
        )

    np.testing.assert_array_equal(draw(3, 7), draw(3, 7))
    for seed, step in ((4, 7), (3, 8)):
        assert (draw(3, 7) == draw(seed, step)).mean() < 0.2


def test_rows_of_one_batch_are_different_draws(digits, ids):
    partners = Partners(digits.train.labels, ids, seed=0)
    rows = partners.many(np.full(8, 3), 0, 10)
    assert len({tuple(sorted(row)) for row in rows.tolist()}) > 4


def test_one_class_is_refused():
    with pytest.raises(UserError, match="require at least two classes, got 1"):
        Partners(LABELS, np.array([2, 3, 9]), seed=0)


def stream(digits, ids, start=0, stop=12, **changes):
    arguments = {
        "batch_size": 16,
        "seed": 3,
        "augment": make_augment("crop,flip"),
        "target_keys": EVERY_KEY,
        "num_negatives": 5,
        "second_augment": make_augment("crop,flip"),
    }
    return pipeline.train_stream(
        digits.train, ids, start_step=start, num_steps=stop, **{**arguments, **changes}
    )


def arrays(dataset):
    return [
        {"image": images.numpy(), **{k: v.numpy() for k, v in targets.items()}}
        for images, targets in dataset
    ]


def test_a_stream_delivers_what_is_asked_for_with_static_shapes(digits, ids):
    spec = stream(digits, ids).element_spec[1]
    assert spec == {
        "label": tf.TensorSpec((16,), tf.int32),
        "index": tf.TensorSpec((16,), tf.int64),
        "negatives": tf.TensorSpec((16, 5), tf.int32),
        "other_image": tf.TensorSpec((16, 8, 8, 1), tf.uint8),
        "second_view": tf.TensorSpec((16, 8, 8, 1), tf.uint8),
    }
    assert set(stream(digits, ids, target_keys=()).element_spec[1]) == {
        "label",
        "index",
    }


def test_what_is_asked_for_beside_does_not_change_the_batch(digits, ids):
    plain = arrays(stream(digits, ids, target_keys=("label", "index")))
    for few, many in zip(plain, arrays(stream(digits, ids)), strict=True):
        for key, value in few.items():
            np.testing.assert_array_equal(many[key], value, err_msg=key)


def test_partners_in_a_stream_are_of_other_classes(digits, ids):
    labels, images = digits.train.labels, digits.train.images
    places = {images[i].tobytes(): i for i in ids}
    for batch in arrays(stream(digits, ids, augment=None, second_augment=None)):
        negatives = batch["negatives"]
        assert (labels[negatives] != batch["label"][:, None]).all()
        assert np.isin(negatives, ids).all()
        partners = np.array([places[image.tobytes()] for image in batch["other_image"]])
        assert (labels[partners] != batch["label"]).all()
        np.testing.assert_array_equal(batch["second_view"], batch["image"])


def test_a_second_view_is_augmented_with_draws_of_its_own(digits, ids):
    same = [
        (batch["second_view"] == batch["image"]).all((1, 2, 3)).mean()
        for batch in arrays(stream(digits, ids))
    ]
    assert np.mean(same) < 0.3
    for batch in arrays(stream(digits, ids, second_augment=None)):
        expected = digits.train.images[batch["index"]]
        np.testing.assert_array_equal(batch["second_view"], expected)


@pytest.mark.parametrize("start", [1, 8, 9, 11])
def test_a_stream_that_resumes_equals_the_rest_of_the_first(digits, ids, start):
    whole, rest = arrays(stream(digits, ids)), arrays(stream(digits, ids, start))
    assert len(rest) == 12 - start
    for expected, got in zip(whole[start:], rest, strict=True):
        assert set(got) == {"image", "label", "index", *EVERY_KEY}
        for key, value in expected.items():
            np.testing.assert_array_equal(got[key], value, err_msg=key)


def test_more_negatives_than_there_are_is_refused(digits, ids):
    most = Partners(digits.train.labels, ids, 0).largest_draw()
    assert len(stream(digits, ids, num_negatives=most)) == 12
    for count in (0, most + 1):
        message = f"requests {count} negatives .* have 1 to {most} of other classes"
        with pytest.raises(UserError, match=message):
            stream(digits, ids, num_negatives=count)


def test_every_target_of_the_table_has_a_loader_and_its_spec(digits, ids):
    assert set(TARGETS) == {"label", "index", *extra_targets.LOADERS}
    spec = stream(digits, ids).element_spec[1]
    for name in TARGETS:
        shape, dtype = target_spec(name, 16, (8, 8, 1), num_negatives=5)
        assert spec[name] == tf.TensorSpec(shape, dtype), name
