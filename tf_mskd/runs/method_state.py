"""What a method learns from the teacher before the first step of a run."""

import numpy as np
import tensorflow as tf

from tf_mskd.runs.data import Data
from tf_mskd.training.distiller import Distiller
from tf_mskd.training.evaluation import Predictor


def prepare_method(
    distiller: Distiller, strategy: tf.distribute.Strategy, data: Data
) -> None:
    """Calls `Method.prepare` of a method that is not prepared yet.

    Its teacher sees the training images as they are, once each.

    Args:
        distiller: whose state is restored, if there was any.
        strategy: that under which its networks were made.
        data: of the run.
    """
    if distiller.method.is_prepared:
        return
    network, predictor = distiller.teacher_network, Predictor(strategy)
    batches = list(predictor.batches(network, data.plain_train_stream()))
    teacher = {
        name: np.concatenate([outputs[name] for outputs, _ in batches])
        for name in batches[0][0]
    }
    index = np.concatenate([targets["index"] for _, targets in batches])
    distiller.method.prepare(teacher, {"index": index})
