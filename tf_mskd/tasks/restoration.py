"""Restoration: the clean image, pixel by pixel."""

import typing

import keras
import numpy as np
from keras import ops

from tf_mskd.tasks import ensemble, heads
from tf_mskd.tasks.base import Task
from tf_mskd.tasks.class_labels import text_of_shape
from tf_mskd.tasks.figures import Figures, Mean
from tf_mskd.tasks.image_quality import mean_absolute_error, psnr, ssim
from tf_mskd.utils.errors import UserError


class Restoration(Task):
    """An exit gives an image [B, H, W, C] in [0, 1]; labels are the clean images.

    Label loss and imitation are the mean absolute error; temperatures change nothing.
    The ensemble is the mean image. The main figure is PSNR in dB, beside it SSIM; see
    `image_quality`. The classes of a data set are the channels of its images.

    Example:
        >>> task = Restoration()
        >>> float(task.label_loss([[[[255]]]], [[[[0.75]]]])[0])
        0.25
    """

    name = "restoration"
    metric = "psnr"
    step_metric = "psnr"
    unit = "dB"
    further_units: typing.ClassVar[dict[str, str]] = {"ssim": ""}
    probabilities = ""
    dense = True

    def check_outputs(self, name, shape):
        """Refuses exits that are no images."""
        if len(shape) != 3:
            raise UserError(
                f"Task {self.name!r} needs exits [B, H, W, C], those of {name!r} make "
                f"{text_of_shape((None, *shape))}: build it with task={self.name!r}."
            )

    def classify(self, x, k, width, dropout=0.0, image_size=()):
        """`exit_k`: a 1x1 convolution, its map resized to the image, a sigmoid."""
        x = heads.answer_map(x, k, width, dropout, f"exit_{k}_conv")
        if tuple(x.shape[1:3]) != tuple(image_size):
            name = f"exit_{k}_resize"
            x = heads.ResizeMap(image_size, dtype="float32", name=name)(x)
        return keras.layers.Activation("sigmoid", dtype="float32", name=f"exit_{k}")(x)

    def label_spec(self, shape):
        """An image of the exit's size."""
        return tuple(shape), "float32"

    def read_label(self, label, shape):
        """Images as float32 in [0, 1]; whole numbers are divided by 255."""
        try:
            label = ops.convert_to_tensor(label)
            dtype = keras.backend.standardize_dtype(label.dtype)
        except (ValueError, TypeError) as error:
            raise self._wrong(type(label).__name__, shape) from error
        found = tuple(label.shape)
        sizes = (*shape[:2], shape[-1])
        fits = len(found) == 4 and all(
            n is None or m is None or n == m
            for n, m in zip(found[1:], sizes, strict=True)
        )
        is_int = keras.backend.is_int_dtype(dtype)
        if not fits or not (is_int or keras.backend.is_float_dtype(dtype)):
            raise self._wrong(f"{dtype} {text_of_shape(found)}", shape)
        return self._image(label)

    def _wrong(self, arrived, shape):
        return UserError(
            f"Labels of the task {self.name!r} must be the clean images "
            f"{text_of_shape((None, *shape))}, whole numbers 0..255 or floats in "
            f"[0, 1], got {arrived}."
        )

    def check_label(self, label, shape):
        """Refuses values outside the range."""
        most = 1 if label.dtype.kind == "f" else 255
        wrong = ~((label >= 0) & (label <= most))
        if wrong.any():
            kind = "floats in [0, 1]" if most == 1 else "whole numbers 0..255"
            raise UserError(
                f"Clean images must be {kind}, got {label[wrong].flat[0].item()}: "
                "give uint8, or floats divided by 255."
            )

    def labels_of(self, labels, num_classes):
        """Refuses data sets without clean images."""
        if labels.ndim != 4:
            raise UserError(
                f"Task {self.name!r} needs a clean image for every image, which the "
                "data set has not: take another, such as --dataset=low_light or pairs."
            )
        return labels

    def label_loss(self, label, output):
        """The mean absolute error."""
        return mean_absolute_error(self._image(label), output)

    def imitation(self, guide, output, temperature):
        """The mean absolute error against the guide, whatever the temperature."""
        return mean_absolute_error(ops.stop_gradient(guide), output)

    def vote(self, outputs, kind="logits", weights=None):
        """The mean image; "logits" and "probabilities" are one."""
        return ensemble.ensemble_scores(outputs, "logits", weights)

    def quality(self, label, output):
        """See `image_quality.psnr`."""
        return psnr(self._image(label), output)

    def figures(self):
        """The means of PSNR and SSIM."""
        return Quality(self._image)

    def panels(self, label, outputs):
        """What the image became at every exit, and last the clean one."""
        images = {**outputs, "truth": np.asarray(self._image(label))}
        return {n: np.uint8(np.round(255 * v)) for n, v in images.items()}

    def _image(self, label):
        label = ops.convert_to_tensor(label)
        is_int = keras.backend.is_int_dtype(label.dtype)
        label = ops.cast(label, "float32")
        return label / 255.0 if is_int else label


class Quality(Figures):
    """Mean PSNR and SSIM.

    Args:
        image: function of labels [n, H, W, C] -> float images in [0, 1].
    """

    def __init__(self, image):
        self._means = [
            Mean(name, lambda label, output, f=function: f(image(label), output))
            for name, function in (("psnr", psnr), ("ssim", ssim))
        ]

    def update(self, label, output):
        """Adds a batch."""
        for mean in self._means:
            mean.update(label, output)

    def results(self):
        """Returns {"psnr": dB, "ssim": at most 1}."""
        return {name: v for mean in self._means for name, v in mean.results().items()}
