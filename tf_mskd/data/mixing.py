"""Mixed batches: mixup and cutmix, as functions of the seed and the step alone."""

import typing

import tensorflow as tf

from tf_mskd.data import counter_random as random
from tf_mskd.data.arrays import Split
from tf_mskd.utils.errors import UserError

SEED = 3_000_003  # added to the seed: draws of their own
PARTNER, KIND, SHARE, ROW, COLUMN = range(5)  # the numbered draws of a step
MIXUP_RATE = 0.5  # of the steps, where both kinds are asked for
HALVINGS = 40  # of the interval in which a quantile is looked for


class Mixing:
    """Mixes each image of a batch with another one of it, and their labels alike.

    Partners are a random permutation of the batch, and all pairs share one proportion,
    both drawn anew each step, as in the released codes of both papers:

        lambda ~ Beta(alpha, alpha)
        mixup:  x[b] = lambda * x[b] + (1 - lambda) * x[p(b)]
        cutmix: a box of sides sqrt(1 - lambda) times those of the image, its centre
            uniform, comes from x[p(b)]; lambda is then the part that is left of x[b]
        y[b] = lambda * onehot(y[b]) + (1 - lambda) * onehot(y[p(b)])

    With both, each step does one of them, with equal chances.

    Args:
        mixup: float alpha >= 0 of mixup; 0: none.
        cutmix: float alpha >= 0 of cutmix; 0: none. One of them must be above 0.
        num_classes: int >= 2.

    Raises:
        UserError: for a value out of range.

    Source: Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: Beyond Empirical Risk
        Minimization", ICLR 2018, arXiv 1710.09412; Yun et al., "CutMix: Regularization
        Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019,
        arXiv 1905.04899.
    Departs from the source: mixed pixels are rounded to whole numbers, as images are
        delivered raw; each step does one of the two, which neither paper combines.

    Example:
        >>> mixing = Mixing(mixup=0.2, num_classes=3)
        >>> images = np.zeros((4, 8, 8, 1), "uint8")
        >>> images, label = mixing(images, np.array([0, 1, 2, 0]), seed=0, step=7)
        >>> images.shape, label.shape
        (TensorShape([4, 8, 8, 1]), TensorShape([4, 3]))
    """

    def __init__(self, mixup: float = 0.0, cutmix: float = 0.0, *, num_classes: int):
        for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
            if not 0 <= alpha < float("inf"):
                raise UserError(f"{name} must be 0 or more, got {alpha!r}.")
        if not mixup and not cutmix:
            raise UserError("Mixing needs mixup or cutmix above 0, got 0 for both.")
        self.mixup, self.cutmix, self.num_classes = mixup, cutmix, num_classes

    def check_split(self, split: Split) -> None:
        """Raises `UserError` unless each image of a split has one class, and no more.

        Label maps, several classes and clean images cannot be mixed.
        """
        if split.labels.ndim != 1 or split.maps or split.pictures:
            raise UserError(
                "mixup and cutmix need one class an image, this data set has labels of "
                "another kind: set both to 0."
            )

    def __call__(
        self, images: tf.Tensor, label: tf.Tensor, seed: int, step: typing.Any
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns (images uint8 [B, H, W, C], labels float32 [B, classes]).

        Args:
            images: uint8 [B, H, W, C], the global batch, static H, W and C.
            label: int [B], classes.
            seed: int, the seed of the run.
            step: int64 scalar, the global step.
        """
        images = tf.convert_to_tensor(images)
        places = tf.range(tf.shape(images, tf.int64)[0])
        keys = random.example_keys(seed + SEED, step, places)
        partner = tf.argsort(random.uniform(keys, PARTNER), stable=True)
        mixed, share = self._mix(images, tf.gather(images, partner), keys[:1])
        label = soft_labels(label, partner, share, self.num_classes)
        return tf.ensure_shape(mixed, images.shape), label

    def _mix(self, images, others, key):
        """The mixed images, and the part that is their own, a float32 scalar."""

        def share(alpha):
            return beta_quantile(random.uniform(key, SHARE)[0], alpha)

        def blended():
            return blend(images, others, share(self.mixup))

        def pasted():
            row, column = random.uniform(key, ROW)[0], random.uniform(key, COLUMN)[0]
            return paste(images, others, share(self.cutmix), row, column)

        if not self.cutmix:
            return blended()
        if not self.mixup:
            return pasted()
        return tf.cond(random.uniform(key, KIND)[0] < MIXUP_RATE, blended, pasted)


def beta_quantile(chance: tf.Tensor, alpha: float) -> tf.Tensor:
    """The quantile of Beta(alpha, alpha), by halving; to 2**-41.

    Args:
        chance: float scalar in [0, 1]; uniform ones give draws of the distribution.
        alpha: float > 0.

    Returns:
        float32 scalar in [0, 1].

    Example:
        >>> round(float(beta_quantile(0.25, alpha=1.0)), 6)  # Beta(1, 1) is uniform
        0.25
    """
    chance = tf.cast(chance, tf.float64)
    tail = tf.minimum(chance, 1.0 - chance)  # the distribution is symmetric
    shape = tf.constant(alpha, tf.float64)
    low, width = tf.zeros([], tf.float64), 0.5
    for _ in range(HALVINGS):
        width /= 2
        below = tf.math.betainc(shape, shape, low + width) < tail
        low += tf.where(below, tf.constant(width, tf.float64), 0.0)
    return tf.cast(tf.where(chance < 0.5, low, 1.0 - low), tf.float32)


def soft_labels(
    label: tf.Tensor, partner: tf.Tensor, share: tf.Tensor, num_classes: int
) -> tf.Tensor:
    """Returns float32 [B, classes], the labels of mixed images.

    Args:
        label: int [B], classes.
        partner: int [B], the row that each image is mixed with.
        share: float32 scalar in [0, 1], the part of the image itself.
        num_classes: int.
    """
    own = tf.one_hot(label, num_classes)
    return share * own + (1.0 - share) * tf.gather(own, partner)


def blend(
    images: tf.Tensor, others: tf.Tensor, share: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """mixup: returns (images of which `share` is their own, `share`).

    Args:
        images, others: uint8 [B, H, W, C].
        share: float32 scalar in [0, 1].
    """
    own, other = tf.cast(images, tf.float32), tf.cast(others, tf.float32)
    mixed = share * own + (1.0 - share) * other
    return tf.cast(tf.round(mixed), images.dtype), share


def paste(
    images: tf.Tensor,
    others: tf.Tensor,
    share: tf.Tensor,
    row: tf.Tensor,
    column: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """cutmix: returns (images with a box of others, the part that is left of them).

    Args:
        images, others: uint8 [B, H, W, C].
        share: float32 scalar in [0, 1], 1 minus the part of the box, before the borders
            clip it and its sides become even numbers of pixels.
        row, column: float32 scalars in [0, 1), the centre of the box in the image.
    """
    height, width = images.shape[1:3]

    def covered(centre, length):  # bool [length]
        half = tf.cast(tf.sqrt(1.0 - share) * length, tf.int32) // 2
        middle = tf.cast(centre * length, tf.int32)
        place = tf.range(length)
        return (place >= middle - half) & (place < middle + half)

    box = covered(row, height)[:, None] & covered(column, width)[None, :]
    left = 1.0 - tf.reduce_mean(tf.cast(box, tf.float32))
    return tf.where(box[None, :, :, None], others, images), left
