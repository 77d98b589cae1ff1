"""The library on JAX, in a process where TensorFlow cannot be imported."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

PROGRAM = """
import sys


class NoTensorFlow:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            raise ImportError("TensorFlow must not be needed here")


sys.meta_path.insert(0, NoTensorFlow())
import keras
import numpy as np
import tf_mskd
from tf_mskd.tasks import softmax
from tf_mskd.methods.common import losses
from tests import reference
assert keras.backend.backend() == "jax"

z, t, y = reference.STUDENT, reference.TEACHER, reference.LABELS
known = [
    ("ce", softmax.cross_entropy(y, z), 2.13784098),
    ("kd 4", softmax.softened_kl(t, z, 4.0), 0.58628936),
    ("kd 1", softmax.softened_kl(t, z, 1.0), 0.37810951),
]
for name, got, expected in known:
    np.testing.assert_allclose(np.mean(got), expected, 2e-5, err_msg=name)

data = np.load(sys.argv[1])
images, labels = data["images"], data["labels"]
make = dict(width=1 / 16, input_shape=(8, 8, 1), exit_head="linear")


def values(variables):
    return [keras.ops.convert_to_numpy(v) for v in variables]


for method, phases in [("mskd", "joint"), ("oto", "detached"), ("oto", "progressive")]:
    keras.utils.set_random_seed(0)
    student = tf_mskd.create_model("resnet10", 10, exits=(1, 2), **make)
    teacher = tf_mskd.create_model("resnet10", 10, exits=(1, 2, 3), **make)
    distiller = tf_mskd.Distiller(student, teacher, method, phases=phases)
    distiller.compile(tf_mskd.SGD(0.1, momentum=0.0))
    networks = [student.trainable_variables, teacher.variables]
    before, fixed = map(values, networks)
    twin = keras.models.clone_model(student)
    twin.set_weights(student.get_weights())
    exits = {n: np.array(v) for n, v in twin(images, training=True).items()}
    targets = teacher(images, training=False)
    if phases == "joint":
        pairs = {"exit_1": "exit_3", "exit_2": "exit_3"}
    else:
        pairs = {"exit_1": "exit_2", "exit_2": "exit_3"}
    if phases == "progressive":
        del pairs["exit_2"]
    expected = reference.objective(pairs, exits, targets, labels, 0.1, 0.9, 4.0)
    batches = dict(batch_size=len(images), shuffle=False, verbose=0)
    history = distiller.fit(images, labels, **batches).history
    name = f"{method} {phases}"
    np.testing.assert_allclose(history["loss"][0], expected, 1e-4, err_msg=name)
    advance = [tf_mskd.callbacks.ExitPhases(3)] if phases == "progressive" else []
    history = distiller.fit(images, labels, epochs=3, callbacks=advance, **batches)
    history = history.history
    losses = history["loss"]
    assert np.isfinite(losses).all(), f"{name}: {losses}"
    moved = [not np.array_equal(a, b) for a, b in zip(before, values(networks[0]))]
    assert all(moved), f"{name}: {moved.count(False)} student variables did not move"
    assert all(np.array_equal(a, b) for a, b in zip(fixed, values(networks[1]))), name
    logs = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    assert np.isfinite(logs["loss"]) and 0 <= logs["ensemble_accuracy"] <= 1, logs

student = tf_mskd.create_model("resnet10", 10, exits=(2,), **make)
distiller = tf_mskd.Distiller(student, teacher, "kd,at,rkd,vid")
distiller.compile(tf_mskd.SGD(0.001))
history = distiller.fit(images, labels, epochs=8, **batches).history
for name in ("kd/exit_2", "at/feature_1", "rkd_angle/embedding_2", "vid/feature_2"):
    assert np.isfinite(history[name]).all(), (name, history[name])
assert history["loss"][-1] < history["loss"][0], history["loss"]
for name in ("dml", "kd,triplet"):
    try:
        tf_mskd.Distiller(student, teacher, name)
    except tf_mskd.UserError as error:
        assert "needs the TensorFlow backend" in str(error), error
    else:
        raise AssertionError(f"{name} was taken")
student = distiller.student

tf_mskd.save_model(student, sys.argv[2])
again = tf_mskd.load_model(sys.argv[2])
for name, value in student(images, training=False).items():
    np.testing.assert_array_equal(again(images, training=False)[name], value)
assert "tensorflow" not in sys.modules
print("all good")
"""


@pytest.mark.run
@pytest.mark.skipif(
    importlib.util.find_spec("jax") is None,
    reason="JAX is not installed: pip install jax to run the library on it",
)
def test_the_library_runs_on_jax_without_tensorflow(digits, tmp_path):
    images, labels = digits
    np.savez(tmp_path / "digits.npz", images=images[:32], labels=labels[:32])
    root = str(pathlib.Path(__file__).parents[1])
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": root}
    files = [str(tmp_path / "digits.npz"), str(tmp_path / "student.keras")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *files],
        env={**environment, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.strip().endswith("all good")
