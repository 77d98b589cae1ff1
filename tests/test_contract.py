"""What the Distiller promises a method: features, views, targets, untouched weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tf_mskd import SGD, Distiller, UserError
from tf_mskd.methods.common.method import Method


class Probe(Method):
    """Compares feature maps with the teacher's, and keeps what it was given."""

    registry_name = "probe"
    default_weights = {"probe": 1.0}

    def output_pairs(self, student, teacher):
        return {"feature_2": ("feature_2",), "feature_4": ("feature_4",)}

    def call(self, student, teacher, targets):
        self.seen = (dict(student), dict(teacher), dict(targets))
        return {
            f"probe/{name}": keras.ops.mean(
                keras.ops.square(student_x - teacher_x), axis=(1, 2, 3)
            )
            for name, student_x, teacher_x in self.paired(student, teacher)
        }


class Twice(Method):
    """Puts a darker copy of each image behind it; labels at the last exit."""

    registry_name = "twice"
    default_weights = {"ce": 1.0}
    needs_teacher = False
    rows_per_image = 2

    def augment(self, images, targets, student, teacher):
        images = keras.ops.cast(images, "float32")
        pairs = keras.ops.stack([images, images / 2], axis=1)
        rows = keras.ops.reshape(pairs, (-1, *images.shape[1:]))
        return rows, {n: keras.ops.repeat(v, 2, axis=0) for n, v in targets.items()}

    def call(self, student, teacher, targets):
        return self.label_terms(student, targets)


def compiled(distiller, **arguments):
    distiller.compile(SGD(0.1, **arguments), jit_compile=False)
    return distiller


class Apart(Probe):
    """Shows the teacher a darker copy of each image."""

    registry_name = "apart"
    teacher_view = True

    def augment(self, images, targets, student, teacher):
        images = keras.ops.cast(images, "float32")
        return images, {**targets, "teacher_view": images / 2}


def test_features_arrive_from_one_pass_and_only_where_read(tiny, digits):
    student, teacher = tiny((2, 4)), tiny((4,))
    distiller = compiled(Distiller(student, teacher, Probe()))
    distiller.train_step((digits[0][:8], digits[1][:8]))
    student_read, teacher_read, targets = distiller.method.seen
    assert set(student_read) == {"exit_2", "exit_4", "feature_2", "feature_4"}
    assert set(teacher_read) == {"feature_2", "feature_4"}
    assert set(targets) == {"label"}
    assert student_read["feature_4"].shape == (8, 1, 1, 32)


def test_batch_statistics_move_once_a_step(tiny, digits):
    student, teacher = tiny((4,)), tiny((4,))
    distiller = compiled(Distiller(student, teacher, Probe()))
    x = tf.cast(digits[0][:8], "float32")
    stem = keras.Model(student.input, student.get_layer("stem_conv").output)
    mean = tf.reduce_mean(stem(x), axis=(0, 1, 2)).numpy()
    distiller.train_step((digits[0][:8], digits[1][:8]))
    moved = student.get_layer("stem_bn").moving_mean.numpy()
    np.testing.assert_allclose(moved, 0.1 * mean, 1e-5, 1e-7)


@pytest.mark.parametrize("learns", [False, True])
def test_the_teacher_alone_reads_its_view(learns, tiny, digits):
    student, teacher = tiny((2, 4)), tiny((2, 4))
    images = tf.cast(digits[0][:8], "float32")
    parts = [
        keras.Model(m.input, m.get_layer("feature_4").output)
        for m in (student, teacher)
    ]
    expected = [
        parts[0](images, training=True).numpy(),
        parts[1](images / 2, training=learns).numpy(),
    ]
    method = Apart()
    method.trains_teacher = learns
    distiller = Distiller(student, teacher, method)
    distiller.compile(SGD(0.1), run_eagerly=True, jit_compile=False)
    distiller.train_step((digits[0][:8], digits[1][:8]))
    for seen, value in zip(method.seen[:2], expected, strict=True):
        np.testing.assert_allclose(seen["feature_4"], value, 1e-4, 1e-5)


def test_what_no_term_reaches_stays_without_decay(tiny, digits):
    student, teacher = tiny((2, 4)), tiny((4,))
    distiller = compiled(Distiller(student, teacher, Probe()), l2=0.5)
    before = {w.path: w.numpy() for w in student.trainable_variables}
    distiller.train_step((digits[0][:8], digits[1][:8]))
    for w in student.trainable_variables:
        same = np.array_equal(before[w.path], w.numpy())
        is_head = w.path.startswith("exit_")
        assert same == is_head, w.path


def test_an_early_phase_computes_and_logs_only_what_it_can(tiny, digits):
    student, teacher = tiny((2, 4)), tiny((4,))
    distiller = compiled(Distiller(student, teacher, Probe(), phases="progressive"))
    logs = distiller.train_step((digits[0][:8], digits[1][:8]))
    assert "probe/feature_2" in logs and "probe/feature_4" not in logs
    student_read, teacher_read, _ = distiller.method.seen
    assert set(student_read) == {"exit_2", "feature_2"} and set(teacher_read) == {
        "feature_2"
    }
    distiller.set_phase(2)
    assert "probe/feature_4" in distiller.train_step((digits[0][:8], digits[1][:8]))


def test_a_phase_without_terms_is_refused(tiny, digits):
    class Deep(Probe):
        def output_pairs(self, student, teacher):
            return {"feature_4": ("feature_4",)}

    distiller = Distiller(tiny((2, 4)), tiny((4,)), Deep(), phases="progressive")
    with pytest.raises(UserError, match=r"no term that phase 1 \(exit_2\) computes"):
        compiled(distiller).train_step((digits[0][:8], digits[1][:8]))


def test_all_rows_of_an_image_enter_the_loss_and_the_first_the_accuracy(tiny, digits):
    student = tiny((4,))
    distiller = compiled(Distiller(student, method=Twice()))
    images, label = digits[0][:8], digits[1][:8]
    weight = np.linspace(0.0, 1.0, 8).astype("float32")
    rows = np.stack([images, images / 2], 1).reshape(16, 8, 8, 1).astype("float32")
    logits = student(rows, training=True)["exit_4"].numpy()  # one batch of 16 rows
    ce = reference.cross_entropy(label.repeat(2), logits)
    expected = (ce * weight.repeat(2)).mean()
    logs = distiller.train_step((images, label, weight))
    np.testing.assert_allclose(logs["loss"], expected, 1e-5)
    hits = logits[::2].argmax(-1) == label
    accuracy = (hits * weight).sum() / weight.sum()
    np.testing.assert_allclose(logs["exit_4_accuracy"], accuracy, 1e-5)


def test_evaluation_takes_one_row_an_image(tiny, digits):
    distiller = compiled(Distiller(tiny((4,)), method=Twice()))
    logs = distiller.evaluate(digits[0][:50], digits[1][:50], verbose=0, batch_size=25)
    got = distiller.evaluate(
        digits[0][:50], digits[1][:50], verbose=0, return_dict=True, batch_size=25
    )
    logits = distiller.student.predict(digits[0][:50], verbose=0)["exit_4"]
    accuracy = (logits.argmax(-1) == digits[1][:50]).mean()
    assert len(logs) == len(got)
    np.testing.assert_allclose(got["exit_4_accuracy"], accuracy, 1e-6)


def test_a_missing_target_is_named(tiny, digits):
    method = Probe()
    method.target_keys = ("label", "index")
    distiller = compiled(Distiller(tiny((4,)), tiny((4,)), method))
    message = r"'probe' reads targets\['index'\], the data deliver label: pass"
    with pytest.raises(UserError, match=message):
        distiller.train_step((digits[0][:8], digits[1][:8]))


def test_a_missing_output_is_named_when_building(tiny):
    class Wants(Probe):
        def output_pairs(self, student, teacher):
            return {"feature_9": ("feature_4",)}

    with pytest.raises(UserError, match="output of the student 'feature_9'"):
        Distiller(tiny((4,)), tiny((4,)), Wants())

    class WantsOfTeacher(Probe):
        def output_pairs(self, student, teacher):
            return {"feature_4": ("featur_4",)}

    with pytest.raises(UserError, match="teacher 'featur_4'; .* 'feature_4'"):
        Distiller(tiny((4,)), tiny((4,)), WantsOfTeacher())


def test_an_auxiliary_head_is_computed_by_no_evaluation(tiny, digits):
    student = tiny((2, 4), aux_heads=("projection", "rotation"))
    distiller = compiled(Distiller(student, method="ce"))
    assert set(distiller.evaluation_network().output) == {"exit_2", "exit_4"}
    before = {w.path: w.numpy() for w in student.trainable_variables}
    distiller.train_step((digits[0][:8], digits[1][:8]))
    for w in student.trainable_variables:
        is_auxiliary = w.path.startswith(("rotation", "projection"))
        same = np.array_equal(before[w.path], w.numpy())
        assert same == is_auxiliary, w.path
