"""mixup and cutmix: known answers, draws of seed and step alone, what is refused."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import special, stats

from tests import reference
from tf_mskd.data import counter_random as random
from tf_mskd.data import mixing, pipeline
from tf_mskd.data.augment import make_augment
from tf_mskd.data.mixing import Mixing
from tf_mskd.data.sources import load_source, split_ids
from tf_mskd.tasks import create_task
from tf_mskd.utils.errors import UserError

KINDS = [(0.2, 0.0), (0.0, 1.0), (0.4, 0.7)]


@pytest.fixture(scope="module")
def digits():
    return load_source("digits")


def batch(count=12, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 6, 8, 3), np.uint8)
    return images, rng.integers(0, classes, count).astype(np.int32)


def drawn(seed, step, count):
    """What a step draws: partners, and the chances of kind, share, row and column."""
    ids = np.arange(count, dtype=np.int64)
    keys = random.example_keys(seed + mixing.SEED, step, ids)
    chances = [float(random.uniform(keys[:1], draw)[0]) for draw in range(1, 5)]
    return np.argsort(random.uniform(keys, 0).numpy(), kind="stable"), *chances


def mixed_by_hand(images, label, share, partner, classes):
    """The formulas of both papers, float64."""
    x, y = images.astype(np.float64), np.eye(classes)[label]
    return (
        share * x + (1 - share) * x[partner],
        share * y + (1 - share) * y[partner],
    )


def box_by_hand(share, row, column, height, width):
    """The box of the released code of cutmix: sides even, clipped at the borders."""
    cut = np.sqrt(1 - share)
    half_h, half_w = int(height * cut) // 2, int(width * cut) // 2
    y, x = int(row * height), int(column * width)
    box = np.zeros((height, width), bool)
    rows = slice(max(y - half_h, 0), min(y + half_h, height))
    box[rows, max(x - half_w, 0) : min(x + half_w, width)] = True
    return box


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 2.5])
def test_a_proportion_is_the_quantile_of_its_chance(alpha):
    for chance in (0.0, 2.0**-24, 0.1, 0.499, 0.5, 0.8, 1 - 2.0**-24):
        got = mixing.beta_quantile(tf.constant(chance, tf.float64), alpha)
        expected = special.betaincinv(alpha, alpha, chance)
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_the_proportions_of_many_steps_have_the_distribution(alpha):
    steps = tf.range(400, dtype=tf.int64)
    keys = random.example_keys(3 + mixing.SEED, 0, steps)
    chances = random.uniform(keys, mixing.SHARE).numpy()
    shares = [float(mixing.beta_quantile(chance, alpha)) for chance in chances]
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_mixup_is_the_formula_of_the_paper():
    images, label = batch()
    for step in range(5):
        partner, _, chance, *_ = drawn(3, step, 12)
        share = special.betaincinv(0.2, 0.2, chance)
        expected, soft = mixed_by_hand(images, label, share, partner, 5)
        got, made = Mixing(0.2, num_classes=5)(images, label, 3, step)
        assert got.dtype == tf.uint8 and made.dtype == tf.float32
        gap = np.abs(got.numpy().astype(float) - expected)
        assert gap.max() <= 0.5 + 1e-4  # rounded to whole numbers
        np.testing.assert_allclose(made, soft, atol=1e-6)
        np.testing.assert_allclose(tf.reduce_sum(made, 1), 1.0, atol=1e-6)


def test_cutmix_pastes_the_box_of_the_released_code():
    images, label = batch()
    sizes = set()
    for step in range(40):
        partner, _, chance, row, column = drawn(3, step, 12)
        box = box_by_hand(special.betaincinv(1, 1, chance), row, column, 6, 8)
        sizes.add(box.sum())
        expected = np.where(box[None, :, :, None], images[partner], images)
        _, soft = mixed_by_hand(images, label, 1 - box.mean(), partner, 5)
        got, made = Mixing(cutmix=1.0, num_classes=5)(images, label, 3, step)
        np.testing.assert_array_equal(got, expected)
        np.testing.assert_allclose(made, soft, atol=1e-6)
    assert min(sizes) == 0 and max(sizes) >= 24 and len(sizes) > 6


def test_with_both_each_step_does_one_of_them():
    images, label = batch()
    both = Mixing(0.2, 1.0, num_classes=5)
    alone = Mixing(0.2, num_classes=5), Mixing(cutmix=1.0, num_classes=5)
    kinds = []
    for step in range(60):
        kind = drawn(1, step, 12)[1] >= 0.5
        got, made = both(images, label, 1, step)
        expected, soft = alone[kind](images, label, 1, step)
        np.testing.assert_array_equal(got, expected)
        np.testing.assert_array_equal(made, soft)
        kinds.append(kind)
    assert 15 < sum(kinds) < 45


def test_partners_are_permutations_and_every_one_is_as_likely():
    pairs = np.zeros((4, 4))
    for step in range(600):
        partner = drawn(0, step, 4)[0]
        assert sorted(partner) == [0, 1, 2, 3]
        pairs[np.arange(4), partner] += 1
    spread = np.sqrt(600 * 0.25 * 0.75)
    assert np.abs(pairs - 150).max() < 5 * spread


def test_the_label_loss_of_mixed_labels_is_the_known_answer():
    partner, share = tf.range(3, -1, -1), tf.constant(0.3)
    soft = mixing.soft_labels(reference.LABELS, partner, share, 5)
    loss = create_task("classification").label_loss(soft, reference.STUDENT)
    assert float(tf.reduce_mean(loss)) == pytest.approx(2.62319736, abs=1e-6)


@pytest.mark.parametrize(("mixup", "cutmix"), KINDS)
def test_a_mixture_depends_on_seed_and_step_alone(mixup, cutmix):
    images, label = batch()
    mix = Mixing(mixup, cutmix, num_classes=5)
    graph = tf.function(lambda step: mix(images, label, 5, step))
    for step in (0, 7):
        eager = mix(images, label, 5, step)
        for a, b in zip(eager, graph(tf.constant(step, tf.int64)), strict=True):
            np.testing.assert_array_equal(a, b)
    first = mix(images, label, 5, 0)[0].numpy()
    for seed, step in ((5, 1), (6, 0)):
        assert not np.array_equal(first, mix(images, label, seed, step)[0])


def stream(digits, start, mix, **changes):
    ids = split_ids(digits.train.labels, validation_fraction=0.9)[0]
    options = {"augment": make_augment("crop,flip"), **changes}
    return pipeline.train_stream(
        digits.train,
        ids,
        batch_size=16,
        seed=3,
        start_step=start,
        num_steps=20,
        mixing=mix,
        **options,
    )


@pytest.mark.parametrize(("mixup", "cutmix"), KINDS)
def test_a_stream_mixes_augmented_batches_and_resumes(digits, mixup, cutmix):
    mix = Mixing(mixup, cutmix, num_classes=10)
    images, targets = stream(digits, 0, mix).element_spec
    assert images == tf.TensorSpec((16, 8, 8, 1), tf.uint8)
    assert targets["label"] == tf.TensorSpec((16, 10), tf.float32)
    whole, plain = list(stream(digits, 0, mix)), list(stream(digits, 0, None))
    for step, (got, unmixed) in enumerate(zip(whole, plain, strict=True)):
        np.testing.assert_array_equal(got[1]["index"], unmixed[1]["index"])
        expected = mix(unmixed[0], unmixed[1]["label"], 3, step)
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_array_equal(got[1]["label"], expected[1])
    for start in (1, 9, 13):
        for a, b in zip(whole[start:], stream(digits, start, mix), strict=True):
            tf.nest.map_structure(np.testing.assert_array_equal, a, b)


def test_mistakes_are_refused():
    with pytest.raises(UserError, match="mixup must be 0 or more, got -1"):
        Mixing(-1, num_classes=5)
    with pytest.raises(UserError, match="cutmix must be 0 or more, got nan"):
        Mixing(cutmix=float("nan"), num_classes=5)
    with pytest.raises(UserError, match="above 0, got 0 for both"):
        Mixing(num_classes=5)
    mix, maps = Mixing(1.0, num_classes=2), load_source("nuclei", image_size=32).train
    with pytest.raises(UserError, match="need one class an image"):
        pipeline.train_stream(
            maps,
            np.arange(8),
            batch_size=4,
            seed=0,
            augment=None,
            start_step=0,
            num_steps=1,
            mixing=mix,
        )
