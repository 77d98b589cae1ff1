"""The distillation work of the benchmark, done by `keras.distillation`."""

import keras
import tensorflow as tf

import tf_mskd
from tf_mskd.models.graph import output_tensors
from tools.timing import step_case
from tools.torch_loop import L2, MOMENTUM, RATE, TEMPERATURE


def keras_case(teacher_name, student_name, stream):
    """Steps of `keras.distillation.Distiller`; our networks and stream, its step."""
    teacher, student = (
        _single(tf_mskd.create_model(name, 100, exits="last"))
        for name in (teacher_name, student_name)
    )
    distiller = keras.distillation.Distiller(
        teacher,
        student,
        keras.distillation.LogitsDistillation(temperature=TEMPERATURE),
        student_loss_weight=0.5,
    )
    distiller.compile(
        tf_mskd.SGD(RATE, MOMENTUM, l2=L2),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    stream = stream.map(lambda images, targets: (images, targets["label"]))
    distiller.optimizer.build(student.trainable_variables)
    few = tf.nest.map_structure(lambda rows: rows[:2], next(iter(stream)))
    distiller.train_step(few)  # it builds its metrics in the first one
    done = distiller.optimizer.iterations.numpy
    return step_case(distiller.train_step, stream.prefetch(2), done)


def _single(model):
    (logits,) = output_tensors(model).values()
    return keras.Model(model.input, logits)
