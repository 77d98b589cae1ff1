"""The fixture of methods that compare maps: two images of 4x4 pixels, three classes."""

import numpy as np

from tests import reference
from tf_mskd.methods.common.create import create_method
from tf_mskd.tasks import create_task

SIZE = (2, 4, 4, 3)
STUDENT, TEACHER = 2 * reference.fill(0.3, SIZE), 3 * reference.fill(0.9, SIZE)


def close(got, expected, rtol=2e-5):
    np.testing.assert_allclose(np.asarray(got), expected, rtol)


def terms_of(name, **arguments):
    """The terms of a method for one exit, and its last map, by the fixture."""
    method = create_method(name, **arguments)
    method.set_task(create_task("segmentation"))
    parts = (STUDENT, TEACHER)
    outputs = [{n: x.astype("float32") for n in ("exit_1", "feature_1")} for x in parts]
    image, row, column = np.indices(SIZE[:3])
    labels = (row + 2 * column + image) % 3
    labels[0, 0, 0] = 255
    shapes = {n: (None, *SIZE[1:]) for n in ("exit_1", "feature_1")}
    method.build(shapes, shapes)
    return method, method(*outputs, {"label": labels.astype("int32")})
