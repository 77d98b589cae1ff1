"""Two devices give what one device gives; run as a program in its own process.

Logical devices exist only if they are asked for before TensorFlow starts.
"""

import sys

import numpy as np
import pytest

from tests.support import Command

BATCH, STEPS = 16, 4
RUNS = {"loop": ("oto", "detached"), "fit": ("mskd", "joint")}
RUNS |= {"peers": ("dml", "joint"), "state": ("dbt", "joint")}
RUNS |= {"maps": ("oto,fckd", "joint")}
AVERAGED = ("dml",)  # methods whose runs average the weights


def train(strategy, arrays, method, phases, use_fit, task="classification"):
    """Trains a few steps on weighted rows; returns variables and logs by name."""
    import keras
    import tensorflow as tf

    import tf_mskd
    from tf_mskd.training.averaging import use_averages
    from tf_mskd.training.optimizers import create_optimizer

    keras.utils.set_random_seed(0)
    with strategy.scope():
        student, teacher = (
            tf_mskd.create_model(
                "resnet10",
                10,
                exits=(1, 2),
                exit_head="linear",
                width=width,
                input_shape=(8, 8, 1),
                synchronized_bn=True,
                task=task,
            )
            for width in (1 / 16, 1 / 8)
        )
        distiller = tf_mskd.Distiller(
            student, teacher, method, phases=phases, task=task
        )
        ema = 0.5 if method in AVERAGED else 0.0
        optimizer = create_optimizer("sgd", 0.1, l2=1e-3, ema=ema)
        distiller.compile(optimizer, jit_compile=False)
        distiller.optimizer.build(distiller.trainable_variables)
    options = tf.data.Options()
    policy = tf.data.experimental.AutoShardPolicy.DATA
    options.experimental_distribute.auto_shard_policy = policy
    data = tf.data.Dataset.from_tensor_slices(arrays)
    data = data.batch(BATCH, drop_remainder=True).with_options(options)
    if use_fit:
        history = distiller.fit(data, epochs=1, verbose=0).history
        logs = {name: value[0] for name, value in history.items()}
        measured = distiller.evaluate(data, verbose=0, return_dict=True)
        logs |= {f"evaluate {name}": value for name, value in measured.items()}
    else:
        step = tf.autograph.experimental.do_not_convert(distiller.train_step)

        @tf.function
        def run(batch):
            strategy.run(step, args=(batch,))

        for batch in strategy.experimental_distribute_dataset(data):
            run(batch)
        logs = distiller.training_logs()
        use_averages(distiller)
    result = {f"log {name}": float(value) for name, value in logs.items()}
    networks = student.variables + teacher.variables
    for index, variable in enumerate(networks + distiller.method.variables):
        result[f"weight {index} {variable.path}"] = variable.numpy()
    return result


def dropout_masks(strategy):
    """What a dropout layer lets through on each replica, before and after spreading."""
    import keras
    import tensorflow as tf

    from tf_mskd.training.strategies import spread_seeds

    with strategy.scope():
        layer = keras.layers.Dropout(0.5, seed=1)
    ones = tf.ones((1, 64))
    masks = {}
    for when in ("alike", "spread"):
        if when == "spread":
            spread_seeds(layer.variables, strategy)
        values = strategy.run(lambda: layer(ones, training=True))
        for r, mask in enumerate(strategy.experimental_local_results(values)):
            masks[f"dropout|{when}|{r}"] = mask.numpy()
    return masks


def main(digits_path, result_path):
    """Trains every run on one device and on two logical CPUs."""
    from tf_mskd.training.strategies import create_strategy

    two = create_strategy("mirrored", 2)
    assert two.num_replicas_in_sync == 2
    one = create_strategy("one_device")
    assert one.num_replicas_in_sync == 1
    data = np.load(digits_path)
    arrays = data["images"], data["labels"], data["weights"]
    results = {}
    for run, settings in RUNS.items():
        for devices, strategy in enumerate((one, two), start=1):
            given, more = arrays, {"use_fit": run == "fit"}
            if run == "maps":  # which pixels have ink; a column is void
                maps = (arrays[0][..., 0] > 100).astype(np.int32)
                maps[:, :, 0] = 255
                given = arrays[0], maps, arrays[2]
                more = {"use_fit": True, "task": "segmentation"}
            values = train(strategy, given, *settings, **more)
            for name, value in values.items():
                results[f"{run}|{devices}|{name}"] = value
    results |= dropout_masks(two)
    np.savez(result_path, **results)


@pytest.fixture(scope="module")
def results(digits, tmp_path_factory):
    """Arrays by "run|number of devices|name"."""
    folder = tmp_path_factory.mktemp("strategies")
    images, labels = digits
    rows = BATCH * STEPS
    weights = np.random.default_rng(0).integers(0, 4, rows).astype(np.float32)
    np.savez(
        folder / "digits.npz",
        images=images[:rows],
        labels=labels[:rows],
        weights=weights,
    )
    done = Command(
        "tests.test_strategies",
        folder / "digits.npz",
        folder / "results.npz",
        environment={"CUDA_VISIBLE_DEVICES": "-1"},
    ).finish()
    assert done.returncode == 0, done
    return dict(np.load(folder / "results.npz"))


def of_run(results, run, devices, kind):
    start = f"{run}|{devices}|{kind} "
    keys = [key for key in results if key.startswith(start)]
    found = {key.removeprefix(start): results[key] for key in keys}
    assert found, start
    return found


@pytest.mark.run
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("kind", ["weight", "log"])
def test_two_devices_equal_one(results, run, kind):
    one = of_run(results, run, 1, kind)
    two = of_run(results, run, 2, kind)
    if kind == "log":
        assert set(one) == set(two)
        pairs = [(name, one[name], two[name]) for name in one]
    else:  # paths carry the number of the network, the order is the same
        pairs = zip(one, one.values(), two.values(), strict=True)
    for name, a, b in pairs:
        np.testing.assert_allclose(b, a, 1e-5, 1e-5, err_msg=f"{run}: {name}")


@pytest.mark.run
def test_dropout_is_independent_per_replica_once_seeds_are_spread(results):
    one, other = results["dropout|alike|0"], results["dropout|alike|1"]
    np.testing.assert_array_equal(one, other)  # what Keras does by itself
    one, other = results["dropout|spread|0"] > 0, results["dropout|spread|1"] > 0
    assert 16 < one.sum() < 48 and 16 < other.sum() < 48
    assert 16 < (one == other).sum() < 48


def test_the_replicas_mean_is_that_of_the_weighted_rows():
    from tf_mskd.utils.replicas import num_replicas, replica_mean

    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=7), rng.integers(0, 3, 7)
    got = float(replica_mean(values, weights))
    np.testing.assert_allclose(got, np.mean(values * weights), 1e-5)
    got = float(replica_mean(values))
    np.testing.assert_allclose(got, values.mean(), 1e-5)
    assert num_replicas() == 1


def test_the_batches_of_one_cpu_are_left_as_they_are():
    import tensorflow as tf

    from tf_mskd.training.strategies import create_strategy, spread

    batches = tf.data.Dataset.range(2)
    assert spread(create_strategy("one_device"), batches) is batches


def test_create_strategy_refuses():
    from tf_mskd import UserError
    from tf_mskd.training.strategies import create_strategy

    with pytest.raises(UserError, match="Unknown strategy 'miror'; .* 'mirrored'"):
        create_strategy("miror")
    with pytest.raises(UserError, match="=64 devices requested, .*one_device"):
        create_strategy("one_device", 64)


if __name__ == "__main__":
    main(*sys.argv[1:])
