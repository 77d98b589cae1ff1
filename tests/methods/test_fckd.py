"""FCKD: masks of certainty, attention, and its two terms; known answers."""

import numpy as np
import pytest
import tensorflow as tf

from tests.methods.maps import TEACHER, close, terms_of
from tf_mskd import UserError
from tf_mskd.methods.common.create import create_method
from tf_mskd.methods.fckd import attentions, condensation, entropy
from tf_mskd.tasks.planes import planes

LOGITS = planes(TEACHER)


def test_known_answers():
    e = np.asarray(entropy(LOGITS))
    close(e[0, :4], [0.94401671, 0.44894760, 0.43240573, 0.94339934])
    close(e.mean(1), [0.62957607, 0.60377438])
    mask = np.asarray(condensation(LOGITS, "hard"))
    assert mask.sum(1).tolist() == [10, 11]
    _, channel = attentions(mask[:, None] * LOGITS)
    close(channel[0, :, 0], [0.88908972, 0.84407487, 1.26683541])
    method, terms = terms_of("fckd")
    close(terms["fckd_spatial/exit_1"], [0.18220208, 0.13256440])
    close(np.mean(terms["fckd_channel/exit_1"]), 0.51964105)
    total = sum(
        weight * np.mean(terms[f"{name}/exit_1"])
        for name, weight in method.default_weights.items()
    )
    close(total, 4.58204104)


def test_attentions_have_mean_1():
    spatial, channel = attentions(LOGITS)
    close(np.mean(spatial, (1, 2)), [1.0, 1.0])
    close(np.mean(channel, (1, 2)), [1.0, 1.0])


def test_an_image_of_one_entropy_keeps_all_its_pixels():
    assert np.all(condensation(tf.zeros_like(LOGITS), "hard") == 1)
    soft = condensation(LOGITS, "soft")
    close(soft, 1 - np.asarray(entropy(LOGITS)), 1e-4)
    _, terms = terms_of("fckd", condense="soft")
    assert np.isfinite(terms["fckd_spatial/exit_1"]).all()


def test_refused():
    with pytest.raises(UserError, match="Unknown condense 'hrad'; did you mean 'hard'"):
        create_method("fckd", condense="hrad")
