"""How close two images are, and where an image changes.

Images are float [B, H, W, C] in [0, 1]; every function keeps the batch axis.
"""

import numpy as np
from keras import ops

from tf_mskd.utils.errors import UserError
from tf_mskd.utils.types import Tensor

MOST = 100.0  # dB, of images that are equal or nearly so
WINDOW, DEVIATION = 11, 1.5  # pixels, of the Gaussian window of SSIM
C1, C2 = 0.01**2, 0.03**2


def mean_absolute_error(a: Tensor, b: Tensor) -> Tensor:
    """The mean of |a - b| over all positions and channels, float32 [B]."""
    return ops.mean(ops.abs(_float(a) - _float(b)), axis=(1, 2, 3))


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, -10 log10 of the mean squared error.

    Args:
        a, b: float [B, H, W, C], in [0, 1].

    Returns:
        float32 [B], in dB; at most 100, which equal images have.

    Example:
        >>> round(float(psnr([[[[0.5]]]], [[[[0.6]]]])[0]), 3)
        20.0
    """
    error = ops.mean(ops.square(_float(a) - _float(b)), axis=(1, 2, 3))
    return -10.0 * ops.log10(ops.maximum(error, 10 ** (-MOST / 10)))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity, the mean over windows and channels.

    SSIM = (2 m_a m_b + C1)(2 s_ab + C2) / ((m_a^2 + m_b^2 + C1)(s_a^2 + s_b^2 + C2)),
    means, variances and covariance under a Gaussian window of 11x11 pixels, deviation
    1.5, where it lies inside the image; C1 = 0.01^2, C2 = 0.03^2. The same as
    `tf.image.ssim` on every backend.

    Args:
        a, b: float [B, H, W, C], in [0, 1], H and W at least 11.

    Returns:
        float32 [B], at most 1, which equal images have.

    Raises:
        UserError: for smaller images.

    Source: Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error
        Visibility to Structural Similarity", IEEE TIP 13(4), 2004.
    """
    a, b = _float(a), _float(b)
    sides = [n for n in a.shape[1:3] if n is not None]
    if sides and min(sides) < WINDOW:
        raise UserError(
            f"SSIM compares windows of {WINDOW}x{WINDOW} pixels, the images have "
            f"{'x'.join(map(str, sides))}: take larger ones."
        )
    mean_a, mean_b = _blurred(a), _blurred(b)
    means = mean_a * mean_b
    squares = ops.square(mean_a) + ops.square(mean_b)
    covariance = _blurred(a * b) - means
    variances = _blurred(ops.square(a) + ops.square(b)) - squares
    luminance = (2 * means + C1) / (squares + C1)
    structure = (2 * covariance + C2) / (variances + C2)
    return ops.mean(luminance * structure, axis=(1, 2, 3))


def gradient_map(x: Tensor) -> Tensor:
    """How steep each channel is at each position.

    G(x) = sqrt(dx^2 + dy^2 + 1e-6), central differences / 2, the edges repeated

    Args:
        x: float [B, H, W, C].

    Returns:
        float32 [B, H, W, C].

    Example:
        >>> round(float(gradient_map([[[[0.0], [0.5], [1.0]]]])[0, 0, 1, 0]), 3)
        0.5
    """
    x = _float(x)
    slope = ops.square(_slope(x, 1)) + ops.square(_slope(x, 2))
    return ops.sqrt(slope + 1e-6)


def _slope(x, axis):
    if axis == 1:
        wide = ops.concatenate([x[:, :1], x, x[:, -1:]], axis=1)
        return (wide[:, 2:] - wide[:, :-2]) / 2
    wide = ops.concatenate([x[:, :, :1], x, x[:, :, -1:]], axis=2)
    return (wide[:, :, 2:] - wide[:, :, :-2]) / 2


def _blurred(x):
    """Under the Gaussian window, rows and then columns; valid positions alone."""
    place = np.arange(WINDOW) - WINDOW // 2
    line = np.exp(-(place**2) / (2 * DEVIATION**2))
    line = np.tile((line / line.sum())[:, None], (1, x.shape[-1])).astype("float32")
    for shape in ((WINDOW, 1), (1, WINDOW)):
        kernel = ops.reshape(ops.convert_to_tensor(line), (*shape, x.shape[-1], 1))
        x = ops.depthwise_conv(x, kernel, data_format="channels_last")
    return x


def _float(x):
    return ops.cast(ops.convert_to_tensor(x), "float32")
