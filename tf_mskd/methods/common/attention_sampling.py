"""Trilinear attention, and images sampled more densely where a map is high."""

import functools

from keras import ops

from tf_mskd.utils.types import Tensor

SHARPNESS = 7.0  # of the normalised maps, as released
FLOOR = 1e-6  # added to every density, so that a map of zeros is a flat one
LIMIT = 4.0  # times the mean density, as released; so is the number of rounds
ROUNDS = 5


def trilinear_attention(features: Tensor) -> Tensor:
    """Maps of a feature map's channels, each joined by the channels related to it.

    X [C, h * w] of one example; N = softmax over the places of 7 X;
    Q = softmax over the last axis of N X^T [C, C]; the maps are Q X.

    Args:
        features: float [B, h, w, C].

    Returns:
        float32 [B, h, w, C]; every map is a mean of channels.

    Source: Zheng, Fu, Zha, Luo, "Looking for the Devil in the Details: Learning
        Trilinear Attention Sampling Network for Fine-Grained Image Recognition",
        CVPR 2019, arXiv 1903.06150, in the form of the released code.

    Example:
        >>> maps = trilinear_attention(ops.ones((1, 2, 2, 3)))
        >>> float(ops.min(maps)), float(ops.max(maps))
        (1.0, 1.0)
    """
    height, width, channels = features.shape[1:]
    features = ops.cast(features, "float32")
    x = ops.reshape(features, (-1, height * width, channels))
    related = relations(x)  # [B, C, C]
    maps = ops.matmul(x, ops.transpose(related, (0, 2, 1)))
    return ops.reshape(maps, (-1, height, width, channels))


def relations(x: Tensor) -> Tensor:
    """Q of the attention: float32 [B, C, C] of [B, places, C]; rows sum to 1."""
    normalised = ops.softmax(SHARPNESS * x, axis=1)
    return ops.softmax(ops.matmul(ops.transpose(normalised, (0, 2, 1)), x), axis=-1)


def sampling_positions(density: Tensor) -> Tensor:
    """Where the pixels of an axis are read, so that each stands for as much density.

    Pixel i of n is read at F^-1((i + 0.5) / n) - 0.5, F the piecewise linear
    distribution of the density, which is constant over each pixel.

    Args:
        density: float32 [B, n], >= 0, of any sum.

    Returns:
        float32 [B, n], positions in pixels, ascending, in [-0.5, n - 0.5].

    Example:
        >>> sampling_positions(ops.ones((1, 3))).numpy().round(4).tolist()
        [[0.0, 1.0, 2.0]]
    """
    size = density.shape[1]
    share = _of_mean_one(density) / size
    below = ops.cumsum(share, axis=1) - share  # F at the left edge of each pixel
    goal = (ops.arange(size, dtype="float32") + 0.5) / size
    passed = ops.cast(below[:, None, :] <= goal[:, None], "int32")
    pixel = ops.sum(passed, axis=-1) - 1  # [B, n]
    inside = goal - ops.take_along_axis(below, pixel, axis=1)
    inside = inside / ops.take_along_axis(share, pixel, axis=1)
    return ops.cast(pixel, "float32") + inside - 0.5


def limited(densities: list) -> list:
    """The densities of an image's axes, without their peaks.

    In each of `ROUNDS` rounds both axes are cut at the lower of their two maxima, in
    the first round also at `LIMIT`; what was cut is spread evenly over the axis. So no
    part of an image is enlarged much more along one axis than along the other, and
    none is left out.

    Args:
        densities: list of float32 [B, n], >= 0, of any sum; n may differ.

    Returns:
        list of float32 [B, n], each row of mean 1.

    Source: the released code of TASN, see `trilinear_attention`.

    Example:
        >>> peak, flat = limited([ops.array([[1.0, 7.0]]), ops.ones((1, 2))])
        >>> [round(float(value), 4) for value in peak[0]]
        [0.9766, 1.0234]
    """
    densities = [_of_mean_one(density) for density in densities]
    for number in range(ROUNDS):
        highest = [ops.max(density, axis=1, keepdims=True) for density in densities]
        if number == 0:
            highest.append(LIMIT)
        cuts = functools.reduce(ops.minimum, highest)
        densities = [ops.minimum(density, cuts) for density in densities]
        densities = [d + 1.0 - ops.mean(d, axis=1, keepdims=True) for d in densities]
    return densities


def sample(images: Tensor, attention: Tensor) -> Tensor:
    """Reads images again, more densely where the attention is high.

    The density of an axis is the largest attention over the other axis, `limited`. Flat
    attention gives the image itself.

    Args:
        images: [B, H, W, C].
        attention: float32 [B, H, W], >= 0.

    Returns:
        float32 [B, H, W, C], bilinear.
    """
    images = ops.cast(images, "float32")
    densities = limited([ops.max(attention, axis=axis) for axis in (2, 1)])
    rows, columns = (_readers(sampling_positions(d)) for d in densities)
    images = ops.einsum("bij,bjkc->bikc", rows, images)
    return ops.einsum("blk,bikc->bilc", columns, images)


def _of_mean_one(density):
    density = density + FLOOR * (ops.mean(density, axis=1, keepdims=True) + FLOOR)
    return density / ops.mean(density, axis=1, keepdims=True)


def _readers(positions):
    """Weights of linear interpolation, [B, n, n]: of read pixels, of given pixels."""
    size = positions.shape[1]
    given = ops.arange(size, dtype="float32")
    positions = ops.clip(positions, 0.0, size - 1.0)  # beyond the border is its pixel
    return ops.relu(1.0 - ops.abs(positions[:, :, None] - given))
