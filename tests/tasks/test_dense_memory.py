"""Losses of maps make nothing larger than the maps; meters do not grow with a split."""

import pickle

import numpy as np
import pytest
import tensorflow as tf

from tf_mskd.methods.cwd import channel_kl
from tf_mskd.tasks import create_task
from tf_mskd.tasks.meter import Meter

SHAPE = (2, 16, 16, 21)
SEGMENTATION = create_task("segmentation")


def label_loss(guide, logits):
    return SEGMENTATION.label_loss(tf.argmax(guide, -1), logits)


def imitation(guide, logits):
    return SEGMENTATION.imitation(guide, logits, 4.0)


def channels(guide, logits):
    return channel_kl(guide, logits, 4.0)


@pytest.mark.parametrize("loss", [label_loss, imitation, channels])
def test_no_tensor_of_a_loss_and_its_gradient_is_larger_than_the_logits(loss):
    @tf.function
    def gradient(guide, logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(guide, logits)
        return tape.gradient(value, logits)

    logits = tf.TensorSpec(SHAPE)
    graph = gradient.get_concrete_function(logits, logits).graph
    tensors = [t for op in graph.get_operations() for t in op.outputs]
    largest = max(tensors, key=lambda t: t.shape.num_elements())
    assert largest.shape.num_elements() == np.prod(SHAPE), largest


def test_a_meter_does_not_grow_with_the_split():
    random, meter, sizes = np.random.default_rng(0), Meter(SEGMENTATION), []
    for _ in range(10):
        first, second = random.random((2, 1, 8, 8, 21), "float32")
        meter.update({"exit_1": first, "exit_2": second}, second.argmax(-1))
        sizes.append(len(pickle.dumps(meter)))
    assert sizes[0] == sizes[-1], sizes
