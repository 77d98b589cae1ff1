"""CRD: the contrast, its banks, their state, and two devices.

The last part runs as a program of its own: logical devices exist only if they are asked
for before TensorFlow starts.
"""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tf_mskd import SGD, Distiller, UserError
from tf_mskd.methods.common.create import create_method
from tf_mskd.training import checkpoint

ROOT = pathlib.Path(__file__).parents[2]
BATCH, STEPS, NEGATIVES, EXAMPLES = 16, 4, 6, 64
CROSS = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


class Reference:
    """The paper's formulas in float64, with the gather that costs the memory."""

    def __init__(self, banks, temperature, momentum=0.5):
        self.banks = [np.array(bank, np.float64) for bank in banks]
        self.temperature, self.momentum, self.z = temperature, momentum, [None, None]

    def step(self, vectors, index, negatives):
        """vectors: of student and teacher, unit rows. Returns l_s + l_t, [B]."""
        columns = np.concatenate([index[:, None], negatives], 1)
        n, q = len(self.banks[0]), negatives.shape[1] / len(self.banks[0])
        total = 0
        for side in (0, 1):
            rows = self.banks[1 - side][columns]  # [B, 1 + K, dim]
            o = np.exp((rows * vectors[side][:, None]).sum(-1) / self.temperature)
            if self.z[side] is None:
                self.z[side] = n * o.mean()
            o = o / self.z[side]
            total = total - np.log(o[:, 0] / (o[:, 0] + q + 1e-7))
            total = total - np.log(q / (o[:, 1:] + q + 1e-7)).sum(1)
        for side in (0, 1):
            old, m = self.banks[side][index], self.momentum
            self.banks[side][index] = unit(m * old + (1 - m) * vectors[side])
        return total


def made(banks, widths=None, **arguments):
    """A built CRD with given banks; projections are the identity without widths."""
    examples, dim = banks[0].shape
    method = create_method("crd", num_examples=examples, dim=dim, **arguments)
    shapes = [(None, width) for width in widths or (dim, dim)]
    method.build(*({"embedding_1": shape} for shape in shapes))
    for side, bank in zip(sides(method), banks, strict=True):
        side["bank"].assign(bank)
        if widths is None:
            side["project"].set_weights([np.eye(dim), np.zeros(dim)])
    return method


def sides(method):
    return method.student_side, method.teacher_side


def term(method, student, teacher, index, negatives):
    targets = {"index": np.array(index), "negatives": np.array(negatives)}
    parts = {"embedding_1": student}, {"embedding_1": teacher}, targets
    return method(*parts)["crd/embedding_1"]


def test_two_steps_by_hand():
    method = made([CROSS, CROSS], num_negatives=2, temperature=1.0)
    batch = np.array([[1.0, 0.0]]), np.array([[0.6, 0.8]]), [0], [[1, 2]]
    np.testing.assert_allclose(term(method, *batch), [2.83075759], 2e-5)
    z = [np.exp(float(side["log_z"].numpy())) for side in sides(method)]
    np.testing.assert_allclose(z, (5.44821503, 6.12862849), 2e-5)
    for side, row in zip(
        sides(method), ((1, 0), (0.89442719, 0.44721360)), strict=True
    ):
        bank = side["bank"].numpy()
        np.testing.assert_allclose(bank[0], row, 2e-5)
        np.testing.assert_array_equal(bank[1:], CROSS[1:])
    np.testing.assert_allclose(term(method, *batch), [2.88499300], 2e-5)
    again = [np.exp(float(side["log_z"].numpy())) for side in sides(method)]
    assert again == z


def test_one_side_by_hand():
    """o = (3/4, 1/4) and q = 1/4: - ln(3/4) - ln(1/2)."""
    bank = np.array([[np.log(3.0), 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    method = made([bank, bank], num_negatives=1, temperature=1.0)
    log_z = method.student_side["log_z"]
    log_z.assign(np.log(4.0))
    got = method._contrast(
        np.array([[1.0, 0.0]], "float32"),
        bank.astype("float32"),
        np.array([[0, 1]]),
        log_z,
    )
    np.testing.assert_allclose(got, [0.98082955], 1e-6)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_three_steps_are_the_formula_on_random_vectors(temperature):
    rng = np.random.default_rng(0)
    banks = rng.uniform(-0.5, 0.5, (2, 40, 8))
    method = made(banks, (5, 7), num_negatives=9, temperature=temperature, momentum=0.7)
    expected = Reference(banks, temperature, 0.7)
    for _ in range(3):
        features = [rng.normal(size=(6, width)) for width in (5, 7)]
        index = rng.permutation(40)[:6]
        negatives = np.stack([rng.permutation(40)[:9] for _ in range(6)])
        vectors = []
        for side, x in zip(sides(method), features, strict=True):
            side["project"].bias.assign(rng.normal(size=8))
            kernel, bias = (w.numpy() for w in side["project"].weights)
            vectors.append(unit(x @ kernel.astype(float) + bias))
        got = term(method, *features, index, negatives)
        np.testing.assert_allclose(got, expected.step(vectors, index, negatives), 2e-5)
        for side, bank in zip(sides(method), expected.banks, strict=True):
            np.testing.assert_allclose(side["bank"].numpy(), bank, 1e-5, 1e-6)


def test_gradients_are_those_of_the_formula_with_z_a_constant():
    rng = np.random.default_rng(1)
    banks = rng.uniform(-0.5, 0.5, (2, 12, 4))
    index, negatives = np.array([3, 7]), rng.integers(0, 12, (2, 5))
    student, teacher = rng.normal(size=(2, 2, 4))
    z = Reference(banks, 0.5)
    z.step([unit(student), unit(teacher)], index, negatives)

    def total(x):
        again = Reference(banks, 0.5)
        again.z = list(z.z)
        return again.step([unit(x), unit(teacher)], index, negatives).sum()

    method = made(banks, num_negatives=5, temperature=0.5)
    x = tf.constant(student, "float32")
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(term(method, x, teacher, index, negatives))
    expected = reference.numeric_gradient(total, student)
    np.testing.assert_allclose(tape.gradient(loss, x), expected, 1e-3, 1e-4)


def test_banks_start_differently_within_their_bounds_and_are_never_trained():
    method = create_method("crd", num_examples=500, dim=48)
    method.build({"embedding_1": (None, 4)}, {"embedding_1": (None, 4)})
    student_x, teacher_x = (side["bank"].numpy() for side in sides(method))
    assert not np.allclose(student_x, teacher_x)
    for bank in (student_x, teacher_x):
        assert 0.24 < abs(bank).max() <= 0.25  # sqrt(3 / 48)
        np.testing.assert_allclose(bank.var(), 0.25**2 / 3, 0.05)
    names = {v.path.split("/")[-2] for v in method.trainable_variables}
    assert names == {"project_student", "project_teacher"}


def test_a_tiny_temperature_stays_finite():
    method = made([CROSS, CROSS], num_negatives=2, temperature=0.005)
    batch = np.array([[1.0, 0.0]]), np.array([[0.6, 0.8]]), [0], [[1, 2]]
    for _ in range(2):
        assert np.isfinite(term(method, *batch)).all()


def test_nothing_of_the_size_batch_times_negatives_times_dim_is_made():
    rows, negatives, examples, dim = 8, 50, 60, 32
    banks = np.random.default_rng(0).normal(size=(2, examples, dim))
    method = made(banks, num_negatives=negatives)

    def step(student, teacher, index, drawn):
        with tf.GradientTape() as tape:
            tape.watch(student)
            targets = {"index": index, "negatives": drawn}
            parts = {"embedding_1": student}, {"embedding_1": teacher}, targets
            loss = tf.reduce_sum(method(*parts)["crd/embedding_1"])
        return tape.gradient(loss, [student, *method.trainable_variables])

    function = tf.function(step, jit_compile=True)
    vectors, index = tf.ones((rows, dim)), tf.range(rows)
    drawn = tf.ones((rows, negatives), "int32")
    text = function.experimental_get_compiler_ir(vectors, vectors, index, drawn)()
    shapes = re.findall(r"\[(\d+(?:,\d+)*)\]", text)
    sizes = {int(np.prod([int(n) for n in shape.split(",")])) for shape in shapes}
    assert examples * dim in sizes  # the shapes are there, and a bank is the largest
    assert max(sizes) < rows * negatives * dim / 4


def batches():
    """Targets of every step, on the first digits; labels do not matter here."""
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        index = rng.permutation(EXAMPLES)[:BATCH]
        negatives = [rng.permutation(EXAMPLES)[:NEGATIVES] for _ in range(BATCH)]
        yield {
            "index": index.astype(np.int64),
            "negatives": np.array(negatives, np.int32),
        }


def distiller(seed=0, **arguments):
    import keras

    import tf_mskd

    keras.utils.set_random_seed(seed)
    student, teacher = (
        tf_mskd.create_model(
            "resnet10",
            10,
            exits=(4,),
            exit_head="linear",
            width=width,
            input_shape=(8, 8, 1),
            synchronized_bn=arguments.get("synchronized", False),
        )
        for width in (1 / 16, 1 / 8)
    )
    method = create_method(
        "crd", num_examples=EXAMPLES, num_negatives=NEGATIVES, dim=16
    )
    made = Distiller(student, teacher, method)
    made.compile(SGD(0.01, l2=1e-3), jit_compile=False)
    made.optimizer.build(made.trainable_variables)
    return made


def test_a_checkpoint_restores_banks_and_constants_bit_for_bit(digits, tmp_path):
    images, labels = digits
    data = [(images[t["index"]], {"label": labels[t["index"]], **t}) for t in batches()]
    first = distiller()
    for batch in data[:2]:
        first.train_step(batch)
    paths = [v.path for v in first.state_variables]
    assert sum("bank_" in p for p in paths) == sum("log_z_" in p for p in paths) == 2
    checkpoints = checkpoint.CheckpointManager(tmp_path)
    checkpoints.write(2, first.state_variables, {})
    second = distiller(seed=1)
    second.teacher.set_weights(first.teacher.get_weights())  # no part of it
    checkpoints.restore(second.state_variables)
    for batch in data[2:]:
        for each in (first, second):
            each.train_step(batch)
    for a, b in zip(first.state_variables, second.state_variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)


def train(strategy, arrays):
    """All variables after a few steps by name; of every device for CRD's own."""
    with strategy.scope():
        trained = distiller(synchronized=True)
    step = tf.autograph.experimental.do_not_convert(trained.train_step)
    data = tf.data.Dataset.from_tensor_slices(arrays).batch(BATCH, drop_remainder=True)
    options = tf.data.Options()
    policy = tf.data.experimental.AutoShardPolicy.DATA
    options.experimental_distribute.auto_shard_policy = policy
    data = data.with_options(options)

    @tf.function
    def run(batch):
        strategy.run(step, args=(batch,))

    for batch in strategy.experimental_distribute_dataset(data):
        run(batch)
    result = {
        f"{i} student": v.numpy() for i, v in enumerate(trained.student.variables)
    }
    for variable in trained.method.variables:
        name = "/".join(variable.path.split("/")[1:])
        copies = strategy.experimental_local_results(variable.value)
        result[f"{name} method"] = np.stack([copy.numpy() for copy in copies])
    loss = trained.training_logs()["crd/embedding_4"]
    result["loss"] = float(loss)
    return result


def main(digits_path, result_path):
    """Trains on one device and on two logical CPUs."""
    from tf_mskd.training.strategies import create_strategy

    two, one = create_strategy("mirrored", 2), create_strategy("one_device")
    assert two.num_replicas_in_sync == 2
    digits = np.load(digits_path)
    targets = list(batches())
    targets = {k: np.concatenate([t[k] for t in targets]) for k in targets[0]}
    images, labels = (digits[k][targets["index"]] for k in ("images", "labels"))
    arrays = images, {"label": labels, **targets}
    results = {}
    for devices, strategy in enumerate((one, two), start=1):
        values = train(strategy, arrays)
        results.update({f"{devices}|{name}": v for name, v in values.items()})
    np.savez(result_path, **results)


@pytest.fixture(scope="module")
def results(digits, tmp_path_factory):
    """Two dicts, of one device and of two, name -> array."""
    folder = tmp_path_factory.mktemp("crd")
    images, labels = (part[:EXAMPLES] for part in digits)
    np.savez(folder / "digits.npz", images=images, labels=labels)
    paths = [str(folder / "digits.npz"), str(folder / "results.npz")]
    done = subprocess.run(
        [sys.executable, "-m", "tests.methods.test_crd", *paths],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    values = dict(np.load(folder / "results.npz"))
    return [
        {k[2:]: v for k, v in values.items() if k.startswith(f"{devices}|")}
        for devices in (1, 2)
    ]


@pytest.mark.run
def test_two_devices_keep_equal_banks(results):
    one, two = results
    names = [name for name in two if name.endswith("method")]
    assert sum("bank_" in name for name in names) == 2
    for name in names:
        assert len(one[name]) == 1 and len(two[name]) == 2
        np.testing.assert_array_equal(two[name][0], two[name][1], err_msg=name)


@pytest.mark.run
def test_two_devices_train_as_one(results):
    one, two = results
    assert set(one) == set(two)
    for name, value in one.items():
        got = two[name][:1] if name.endswith("method") else two[name]
        np.testing.assert_allclose(got, value, 1e-4, 1e-5, err_msg=name)


def test_refuses_what_does_not_fit():
    method = create_method("crd")
    shapes = {"embedding_1": (None, 4)}, {"embedding_1": (None, 4)}
    with pytest.raises(UserError, match="'crd' keeps a vector .*: give num_examples"):
        method.build(*shapes)
    with pytest.raises(UserError, match="embedding_k of the teacher, .* only exit_1"):
        method.output_pairs(["embedding_1"], ["exit_1"])


if __name__ == "__main__":
    main(*sys.argv[1:])
