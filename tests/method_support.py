"""What the tests of all methods share: their batches, students and teachers."""

import functools

import numpy as np
import pytest

from tf_mskd import UserError, create_model
from tf_mskd.methods.common import registry
from tf_mskd.utils.choices import AUX_HEADS

# for classes; those of other tasks have tests of their own
METHODS = registry.available_methods("classification")
CLASSES, IMAGES = 10, 8
every_method = pytest.mark.parametrize("name", METHODS)

# Numbers of exits that a method refuses, each with the reason.
ONE_EXIT = {"kd": "one exit learns from one"}
SEVERAL_EXITS = dict.fromkeys(
    ("byot", "dbt", "eed", "tskd"), "the student's exits teach each other"
)
# Arguments that make a method fit a batch of eight.
ARGUMENTS = {
    "crd": {"num_examples": 16, "num_negatives": 2},
}


def batch_for(method, images, label):
    """A batch with every target that a method reads."""
    targets = {"label": label, "index": np.arange(IMAGES, dtype=np.int32)}
    if "negatives" in method.target_keys:
        negatives = np.full((IMAGES, method.num_negatives), 9) + np.arange(2)
        targets["negatives"] = negatives.astype(np.int32)
    for key in {"other_image", "second_view"} & set(method.target_keys):
        targets[key] = images[::-1].copy()
    return images, targets


def fitting(name, make, order):
    """The first Distiller of `make(exits)` that is not refused.

    Refused may be the number of exits alone, and by the methods that are known for it.
    """
    for exits in order:
        try:
            return make(exits)
        except UserError as error:
            why = ONE_EXIT if exits == "all" else SEVERAL_EXITS
            assert name in why, f"{name} {exits}: {error}"
    raise AssertionError(f"{name} takes no student")


@functools.cache
def shared_teacher(exits):
    """A teacher of the digits, for all methods that leave it as it was."""
    settings = {"input_shape": (8, 8, 1), "exit_head": "linear", "width": 1 / 8}
    return create_model(
        "resnet10", CLASSES, exits=exits, aux_heads=AUX_HEADS, **settings
    )


def teacher_for(method, exits):
    make = shared_teacher.__wrapped__ if method.trains_teacher else shared_teacher
    return make(exits)
