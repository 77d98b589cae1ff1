"""Segmentation: the class of every pixel."""

import keras
import numpy as np
from keras import ops

from tf_mskd.tasks import ensemble, heads
from tf_mskd.tasks.base import Task
from tf_mskd.tasks.class_labels import text_of_shape
from tf_mskd.tasks.confusion import Confusion
from tf_mskd.tasks.label_maps import (
    VOID,
    at_labels,
    pixel_accuracy,
    pixel_cross_entropy,
    pixel_kl,
)
from tf_mskd.utils.errors import UserError

MOST = 128  # pixels of a side up to which exits answer for every pixel
STRIDE = 4  # of exits on larger images
RED, WHITE = np.uint8([200, 30, 30]), np.uint8([245, 245, 245])


def _colours():
    """uint8 [256, 3]: neighbouring classes look unlike each other, 255 is black.

    The bits of the class number, from the low end, are the high bits of its colour, as
    in the label images of PASCAL VOC.
    """
    classes, colours = np.arange(256), np.zeros((256, 3), int)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((classes >> channel) & 1) << (7 - bit)
        classes >>= 3
    colours[VOID] = 0
    colours[0] = 230  # the background of most sets, told apart from void
    return colours.astype(np.uint8)


COLOURS = _colours()


class Segmentation(Task):
    """An exit gives logits [B, h, w, classes]; labels are int [B, H, W], 255 is void.

    Exits are as large as the image up to 128 pixels a side, a quarter as high and wide
    above; losses and figures resize them to the labels. The label loss is the
    cross-entropy, imitation the divergence KD_T of each pixel, see `label_maps`. The
    main figure is mIoU over the whole data set, see `confusion`; each step logs the
    accuracy of the pixels.

    Example:
        >>> task = Segmentation()
        >>> logits = [[[[0.0, 0.0], [9.0, 0.0]]]]
        >>> float(task.label_loss([[[0, 255]]], logits)[0])  # ln 2
        0.6931471824645996
    """

    name = "segmentation"
    metric = "miou"
    step_metric = "pixel_accuracy"
    dense = True

    def check_outputs(self, name, shape):
        """Refuses exits that are no maps of two classes or more."""
        if len(shape) != 3 or shape[-1] < 2:
            raise UserError(
                f"Task {self.name!r} needs exits [B, h, w, classes], those of {name!r} "
                f"make {text_of_shape((None, *shape))}: build it with "
                f"task={self.name!r}."
            )

    def classify(self, x, k, width, dropout=0.0, image_size=()):
        """`exit_k`: a 1x1 convolution, and its map resized."""
        if None in image_size:
            raise UserError(
                f"Exits of the task {self.name!r} have the size of the image: build "
                "the network for images of one size."
            )
        x = heads.answer_map(x, k, width, dropout, f"exit_{k}_conv")
        size = exit_size(image_size)
        return heads.ResizeMap(size, dtype="float32", name=f"exit_{k}")(x)

    def label_spec(self, shape):
        """A class number for each pixel, at the size of the exits."""
        return shape[:2], "int32"

    def read_label(self, label, shape):
        """Label maps [B, H, W] or [B, H, W, 1] of any whole numbers, as int32."""
        try:
            label = ops.convert_to_tensor(label)
            dtype = keras.backend.standardize_dtype(label.dtype)
        except (ValueError, TypeError) as error:
            raise self._wrong(type(label).__name__) from error
        found = tuple(label.shape)
        if len(found) == 4 and found[-1] == 1:
            label = ops.squeeze(label, -1)
        if len(label.shape) != 3 or not keras.backend.is_int_dtype(dtype):
            raise self._wrong(f"{dtype} {text_of_shape(found)}")
        return ops.cast(label, "int32")

    def _wrong(self, arrived):
        return UserError(
            f"Labels of the task {self.name!r} must be whole numbers [B, H, W], a "
            f"class or {VOID} (void) for each pixel, got {arrived}."
        )

    def check_label(self, label, shape):
        """Refuses numbers that are no class and not void, and maps of void alone."""
        wrong = ~(((label >= 0) & (label < shape[-1])) | (label == VOID))
        if wrong.any():
            raise UserError(
                f"Label maps must hold classes 0..{shape[-1] - 1} or {VOID} (void), "
                f"got {label[wrong].flat[0].item()}: number the classes from 0, or "
                "build the student with as many."
            )
        if (label == VOID).all():
            raise UserError(
                f"Label maps hold {VOID} (void) alone: no pixel says what to learn."
            )

    def labels_of(self, labels, num_classes):
        """Refuses data sets without label maps."""
        if labels.ndim != 3:
            raise UserError(
                f"Task {self.name!r} needs a label for every pixel, the data set has "
                "one for every image: take the task 'classification', or another set."
            )
        return labels

    def label_loss(self, label, output):
        """See `label_maps.pixel_cross_entropy`."""
        return pixel_cross_entropy(label, output)

    def imitation(self, guide, output, temperature):
        """See `label_maps.pixel_kl`."""
        return pixel_kl(guide, output, temperature)

    def vote(self, outputs, kind="logits", weights=None):
        """Logits: the mean of the exits' or the logarithm of the mean probabilities."""
        scores = ensemble.ensemble_scores(outputs, kind, weights)
        return ops.log(scores + 1e-12) if kind == "probabilities" else scores

    def quality(self, label, output):
        """See `label_maps.pixel_accuracy`."""
        return pixel_accuracy(label, output)

    def confidence(self, output):
        """The largest probability of each position."""
        return ops.max(ops.softmax(ops.cast(output, "float32"), axis=-1), axis=-1)

    def panels(self, label, outputs):
        """Classes by colour, void black; the errors of the ensemble red."""
        told = {
            name: np.asarray(ops.argmax(at_labels(z[None], label[None]), -1))[0]
            for name, z in outputs.items()
        }
        wrong = (told["ensemble"] != label) & (label != VOID)
        colours = {"truth": label, **told}
        pictures = {name: COLOURS[classes] for name, classes in colours.items()}
        return {**pictures, "error": np.where(wrong[..., None], RED, WHITE)}

    def figures(self):
        """See `confusion.Confusion`."""
        return Confusion()


def exit_size(image_size: tuple[int, ...]) -> tuple[int, ...]:
    """Height and width of the exits for images of a size.

    Example:
        >>> exit_size((64, 64)), exit_size((512, 256))
        ((64, 64), (128, 64))
    """
    if max(image_size) <= MOST:
        return image_size
    return tuple(-(-side // STRIDE) for side in image_size)
