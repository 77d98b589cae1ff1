"""The data set `low_light`: photographs darkened, and as they were.

Built in are the two photographs of scikit-learn, cut into windows; with a data folder
it is the CIFAR-100 that lies prepared there.
"""

import dataclasses

import numpy as np

from tf_mskd.data.arrays import CHANNELS, Source, Split
from tf_mskd.data.reading import Reading
from tf_mskd.utils.errors import UserError

SIDES = (32, 64, 96)  # of windows
TRAIN_COLUMNS = 448  # the windows right of them are the test split
GAMMA, GAIN = (1.8, 3.0), (0.3, 0.7)
NOISE = 0.02  # standard deviation, white is 1


def load_low_light(
    data_dir: str | None = None, side: int | None = None, resize: str = "crop"
) -> Source:
    """Darkens photographs; the labels are the photographs.

    Each image has a darkness of its own, which its position draws: the same at every
    call and in every epoch.

    Args:
        data_dir: folder of a prepared CIFAR-100; None takes the built-in photographs.
        side: of the windows in pixels, 32, 64 or 96; None is 64: 312 overlapping ones
            to train on, of the left 70 % of both photographs, and 36 to test with. Of
            CIFAR-100 what `load_tfds` takes, as `resize`.

    Returns:
        `Source` with images and labels uint8 [N, side, side, 3].

    Raises:
        UserError: for another side, or if CIFAR-100 is not prepared.

    Example:
        >>> source = load_low_light()
        >>> source.train.images.shape, source.test.labels.shape
        ((312, 64, 64, 3), (36, 64, 64, 3))
    """
    if data_dir:
        from tf_mskd.data.tfds_sets import load_tfds  # which needs TensorFlow

        source = load_tfds("cifar100", data_dir, side, Reading(resize))
        train, test = source.train.images, source.test.images
        source = dataclasses.replace(source, name="low_light")
    else:
        train, test = _photographs(64 if side is None else side)
        source = Source("low_light", Split(train, {}), Split(test, {}), CHANNELS)
    splits = (
        Split(darken(clean, seed), {"label": clean})
        for seed, clean in enumerate((train, test))
    )
    train_split, test_split = splits
    return dataclasses.replace(
        source, train=train_split, test=test_split, class_names=CHANNELS
    )


def darken(images: np.ndarray, seed: int = 0) -> np.ndarray:
    """Makes low-light images: darker, of less contrast, noisy.

    low = clip(gain * x^gamma + noise), gamma 1.8 to 3, gain 0.3 to 0.7, both one for an
    image, noise normal of deviation 0.02 for each value; x in [0, 1].

    The draws are those of a counter-based generator with (seed, position) as its key.

    Args:
        images: uint8 [N, H, W, C].
        seed: int >= 0.

    Returns:
        uint8 [N, H, W, C].

    Source: Lore, Akintayo, Sarkar, "LLNet", Pattern Recognition 61, 2017, arXiv
        1511.03995. Departs from the source: ranges of ours; there gamma is 2 to 5.
    """
    dark = np.empty_like(images)
    for position, image in enumerate(images):
        random = np.random.Generator(np.random.Philox(key=[seed, position]))
        gamma, gain = random.uniform(*GAMMA), random.uniform(*GAIN)
        noise = 255 * NOISE * random.standard_normal(image.shape)
        value = at_level(image, gain, gamma) + noise
        dark[position] = np.clip(np.round(value), 0, 255)
    return dark


def at_level(image: np.ndarray, gain: float, gamma: float) -> np.ndarray:
    """255 * gain * (x / 255)^gamma of uint8 values, float64.

    Example:
        >>> at_level(np.uint8([0, 128, 255]), 0.6, 2.2).round(2).tolist()
        [0.0, 33.59, 153.0]
    """
    levels = 255 * gain * (np.arange(256) / 255) ** gamma
    return levels[image]


def _photographs(side):
    """Windows of the two photographs, uint8 [N, side, side, 3], to train and test."""
    if side not in SIDES:
        raise UserError(
            f"Windows of 'low_light' have {', '.join(map(str, SIDES[:-1]))} or "
            f"{SIDES[-1]} pixels a side, got {side}: set --image_size to one of these."
        )
    from sklearn.datasets import load_sample_images

    pictures = load_sample_images().images  # uint8 [427, 640, 3] each
    left = [_windows(p[:, :TRAIN_COLUMNS], side, side // 2) for p in pictures]
    right = [_windows(p[:, TRAIN_COLUMNS:], side, side) for p in pictures]
    return np.concatenate(left), np.concatenate(right)


def _windows(picture, side, stride):
    shape = side, side, picture.shape[-1]
    cut = np.lib.stride_tricks.sliding_window_view(picture, shape)[::stride, ::stride]
    return cut.reshape(-1, *shape)
