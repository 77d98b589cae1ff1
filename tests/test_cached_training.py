"""Training from a teacher cache: the numbers of live training, and every refusal."""

import dataclasses
import json
import os
import pathlib
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_mskd
from tests.support import TINY, Command, assert_same_run, start
from tf_mskd.methods.common.create import create_method
from tf_mskd.runs import experiment
from tf_mskd.runs.build import build_distiller
from tf_mskd.runs.config import Config
from tf_mskd.runs.data import Data
from tf_mskd.runs.flags import to_flagfile
from tf_mskd.runs.plan import plan_cache
from tf_mskd.teacher_cache.cached_teacher import CachedTeacher
from tf_mskd.teacher_cache.parts import Part
from tf_mskd.training.checkpoint import CheckpointManager
from tf_mskd.training.stopping import Stopped
from tf_mskd.training.tensorflow_loop import TensorFlowLoop
from tf_mskd.training.trainer import Trainer
from tf_mskd.utils.errors import UserError

ROWS = 649  # training images of TINY


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Configuration of runs under one teacher, with a cache of two views."""
    folder = tmp_path_factory.mktemp("cached")
    teacher = dataclasses.replace(TINY, width=0.125, epochs=2)
    experiment.run(dataclasses.replace(teacher, run_dir=str(folder / "teacher")))
    return dataclasses.replace(
        TINY, method="mskd", teacher=str(folder / "teacher"), cached_augmentations=2
    )


@pytest.fixture(scope="module")
def filled(base, tmp_path_factory):
    """A cache filled ahead, and the run from it."""
    folder = tmp_path_factory.mktemp("filled")
    config = dataclasses.replace(
        base, teacher_cache=str(folder / "cache"), run_dir=str(folder / "run")
    )
    cache = experiment.fill_cache(config).cache
    for view in range(2):
        assert len(cache.missing(view, np.arange(1438))) == 1438 - ROWS
    experiment.run(config)
    return config


def with_cache(config, path, **changes):
    cache = str(path / "cache")
    return dataclasses.replace(config, teacher_cache=cache, **changes)


@pytest.mark.run
def test_filled_on_the_way_is_the_same_run(base, filled, tmp_path, capsys):
    run = tmp_path / "run"
    experiment.run(with_cache(base, tmp_path, run_dir=str(run)))
    text = capsys.readouterr().out
    assert text.count(f"{ROWS} rows in") == 2  # of three epochs
    for name in ("exit_2.rows", "exit_2.sums"):
        theirs = pathlib.Path(filled.teacher_cache) / name
        assert (tmp_path / "cache" / name).read_bytes() == theirs.read_bytes()
    assert_same_run(run, pathlib.Path(filled.run_dir))


@pytest.mark.run
@pytest.mark.parametrize(
    ("method", "repeats"),
    [("kd", 1), ("oto", 1), ("pkt", 1), ("kd,rkd", 1), ("oto", 2), ("kd", 3)],
)
def test_losses_are_those_of_live_training_on_the_same_views(
    base, tmp_path, method, repeats
):
    exits = (1, 2) if method == "oto" else (2,)
    changes = {"exits": ",".join(map(str, exits)), "dropout": 0.0}
    changes |= {"repeats": repeats, "cached_augmentations": max(2, repeats)}
    config = with_cache(base, tmp_path, method=method, **changes)
    data = Data(config)
    teacher = tf_mskd.create_model(
        "resnet10",
        10,
        exits=exits,
        width=0.125,
        input_shape=(8, 8, 1),
        mean=data.source.mean,
        std=data.source.std,
    )
    distiller = build_distiller(config, data.source, teacher)
    distiller.compile(tf_mskd.SGD(0.0))
    cached = CachedTeacher(distiller, tf.distribute.get_strategy(), data, config)
    steps = data.steps_per_epoch
    for epoch in (0, 3):
        cached.prepare(epoch)
        stream = data.train_stream(epoch * steps, cached)
        assert len(list(stream)) == steps  # to the end of the epoch
        live = data.train_stream(epoch * steps)
        for (x, targets), (y, others) in zip(stream.take(3), live, strict=False):
            np.testing.assert_array_equal(x, y)
            np.testing.assert_array_equal(targets["index"], others["index"])
            losses = [loss(distiller, x, t) for t in (targets, others)]
            np.testing.assert_allclose(*losses, rtol=2e-3)
            answers = distiller.teacher_network(x, training=False)
            assert set(targets["teacher"]) == set(answers)
            for name, value in answers.items():
                close = {"rtol": 2e-3, "atol": 2e-3 * np.abs(value).max()}
                np.testing.assert_allclose(targets["teacher"][name], value, **close)


def loss(distiller, x, targets):
    outputs = distiller(x, training=True)
    return float(distiller.compute_loss(x, targets, outputs))


@pytest.mark.parametrize("steps, said", [(0, "No step is"), (3, "Checkpoint saved")])
def test_a_stop_before_an_epoch_says_what_is_saved(steps, said, tiny, tmp_path):
    def stop_while_filling(epoch, is_asked_to_stop):
        os.kill(os.getpid(), signal.SIGTERM)
        assert is_asked_to_stop()

    distiller = tf_mskd.Distiller(tiny(), method="ce")
    distiller.compile(tf_mskd.SGD(0.1))
    distiller.optimizer.build(distiller.trainable_variables)
    trainer = Trainer(
        distiller,
        # the stream is not read before the teacher's rows are there
        TensorFlowLoop(distiller, tf.distribute.get_strategy(), stream=None),
        steps_per_epoch=3,
        epochs=2,
        checkpoints=CheckpointManager(tmp_path),
        prepare=stop_while_filling,
    )
    if steps:
        trainer.cursor.step, trainer.cursor.history = steps, [{"epoch": 1}]
        trainer.cursor.write(trainer.checkpoints, distiller.state_variables)
    with pytest.raises(Stopped) as stopped:
        trainer.run()
    assert f"step 0 of 3. {said}" in stopped.value.text
    assert bool(list(tmp_path.iterdir())) == bool(steps)


def test_the_teacher_is_not_run_where_its_answers_are_given(tiny, digits):
    student, teacher = tiny(), tiny(width=1 / 8)
    distiller = tf_mskd.Distiller(student, teacher, "mskd")
    distiller.compile(tf_mskd.SGD(0.05))
    teacher.get_layer("exit_2").kernel.assign(
        np.full(teacher.get_layer("exit_2").kernel.shape, np.nan)
    )
    images, labels = digits
    answers = np.eye(10, dtype="float16")[labels[:64]] * 5
    targets = {"label": labels[:64], "teacher": {"exit_2": answers}}
    data = tf.data.Dataset.from_tensors((images[:64], targets))
    history = distiller.fit(data, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.run
def test_views_repeat(base):
    data = Data(dataclasses.replace(base, cached_augmentations=2, augment="crop"))
    steps, rows = data.steps_per_epoch, {}
    for epoch in range(4):
        for images, targets in data.train_stream(epoch * steps).take(steps):
            for i, image in zip(targets["index"].numpy(), images.numpy(), strict=True):
                rows.setdefault(i, {})[epoch] = image
    twice = [v for v in rows.values() if {0, 1, 2} <= set(v)]
    assert len(twice) > 100
    assert all((v[0] == v[2]).all() for v in twice)
    assert np.mean([(v[0] == v[1]).all() for v in twice]) < 0.5


@pytest.mark.run
def test_kills_while_it_fills_and_while_it_trains(base, filled, tmp_path):
    """In the first view, and, once an epoch is trained from it, in the second."""
    config, rows = with_cache(base, tmp_path), []
    for writes in (500, 1500):  # two for each row
        at = ["SIGKILL", f"call os:pwrite {writes}"]
        done = start(tmp_path / "run", config, at).finish()
        assert done.returncode == -signal.SIGKILL, done
        sums = np.fromfile(tmp_path / "cache" / "exit_2.sums", np.uint64)
        rows.append(np.count_nonzero(sums.reshape(2, -1), axis=1))
    assert 0 < rows[0][0] < ROWS and rows[0][1] == 0
    assert rows[1][0] == ROWS and 0 < rows[1][1] < ROWS
    done = start(tmp_path / "run", config).finish()
    assert done.returncode == 0, done
    assert_same_run(tmp_path / "run", pathlib.Path(filled.run_dir))


@pytest.mark.run
def test_runs_at_once_share_the_work(base, tmp_path):
    config = with_cache(base, tmp_path, epochs=2)
    processes = [
        start(tmp_path / f"seed{seed}", dataclasses.replace(config, seed=seed))
        for seed in (0, 1)
    ]
    done = [process.finish() for process in processes]
    assert [d.returncode for d in done] == [0, 0], done
    made = [x for d in done for x in d.stdout.splitlines() if "rows in" in x]
    data = [Data(dataclasses.replace(config, seed=seed)) for seed in (0, 1)]
    both = set(data[0].train_ids) | set(data[1].train_ids)  # drawn by seed
    assert sum(int(line.split(", ")[1].split()[0]) for line in made) == 2 * len(both)


@pytest.mark.run
def test_two_devices_fill_and_train(base, filled, tmp_path):
    changes = {"strategy": "mirrored", "num_devices": 2}
    done = start(tmp_path / "run", with_cache(base, tmp_path, **changes)).finish()
    assert done.returncode == 0, done
    rows = [
        np.fromfile(pathlib.Path(folder) / "exit_2.rows", np.float16)
        for folder in (tmp_path / "cache", filled.teacher_cache)
    ]
    np.testing.assert_allclose(*rows, rtol=5e-3, atol=5e-3)
    assert np.abs(rows[0]).max() > 1


@pytest.mark.run
def test_sigterm_while_it_fills(base, tmp_path):
    at = ["SIGTERM", "call os:pwrite 500"]
    done = start(tmp_path / "run", with_cache(base, tmp_path), at).finish()
    assert done.returncode == 143, done
    assert "run the same command to resume" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


# ---- the command


def cache_command(config, folder):
    (folder / "run.flags").write_text(to_flagfile(config))
    return Command("tf_mskd.cache", f"--flagfile={folder / 'run.flags'}").finish()


@pytest.mark.run
def test_the_command_fills_ahead_and_is_done_at_once_again(base, tmp_path):
    config = with_cache(base, tmp_path, method="kd", exits="2", cache_top_k=3)
    for count in (2, 0):
        done = cache_command(config, tmp_path)
        assert done.returncode == 0, done
        assert done.stdout.count("rows in") == count
        assert "is full: exit_2, 2 views, 0.1 MB" in done.stdout
    known = json.loads((tmp_path / "cache" / "cache.json").read_text())
    assert (known["top_k"], known["temperature"]) == (3, 4.0)  # that of KD
    changes = {"run_dir": str(tmp_path / "run"), "epochs": 6, "dropout": 0.0}
    result = experiment.run(dataclasses.replace(config, **changes))
    assert result.test["ensemble"] > 0.15  # chance is 0.1


@pytest.mark.run
def test_the_command_wants_a_folder(base, tmp_path):
    done = cache_command(base, tmp_path)
    assert done.returncode == 2
    assert done.stderr.endswith(
        "error: --teacher_cache is empty: name the folder to fill.\n"
    )


# ---- parts of the images


def part_command(config, folder, part):
    flagfile = folder / f"{part.replace('/', '_of_')}.flags"
    flagfile.write_text(to_flagfile(config))
    return Command("tf_mskd.cache", f"--flagfile={flagfile}", f"--part={part}")


def same_files(one, two):
    names = ["exit_2.rows", "exit_2.sums"]
    read = [[(pathlib.Path(x) / n).read_bytes() for n in names] for x in (one, two)]
    return read[0] == read[1]


@pytest.mark.run
def test_parts_at_once_fill_what_one_process_fills(base, filled, tmp_path):
    config = with_cache(base, tmp_path, run_dir=str(tmp_path / "run"))
    done = part_command(config, tmp_path, "2/4").finish()
    assert done.returncode == 0, done
    missing = 2 * (ROWS - 32 * 5)  # batches 6 to 10 of 21, in two views
    assert done.stdout.splitlines()[-1] == (
        f"part 2/4 of {config.teacher_cache} is full; of the whole, {missing} of "
        f"{2 * ROWS} rows are missing yet, in part 1, 3, 4 of 4"
    )
    others = [part_command(config, tmp_path, f"{k}/4") for k in (1, 3, 4)]
    done = [command.finish() for command in others]
    assert [d.returncode for d in done] == [0, 0, 0], done
    assert not any("waiting" in d.stdout for d in done)
    assert any("is full: exit_2, 2 views, 0.1 MB" in d.stdout for d in done)
    assert same_files(config.teacher_cache, filled.teacher_cache)
    again = part_command(config, tmp_path, "3/4").finish()
    assert "rows in" not in again.stdout and "is full: exit_2" in again.stdout


@pytest.mark.run
def test_overlapping_parts_leave_whole_rows(base, filled, tmp_path):
    """Of two divisions; each computes what it finds missing, some rows both."""
    config = with_cache(base, tmp_path, run_dir=str(tmp_path / "run"))
    commands = [part_command(config, tmp_path, part) for part in ("1/2", "2/3")]
    done = [command.finish() for command in commands]
    assert [d.returncode for d in done] == [0, 0], done
    cache = experiment.fill_cache(config).cache
    for view in range(2):
        assert len(cache.missing(view, np.arange(1438))) == 1438 - ROWS
    assert same_files(config.teacher_cache, filled.teacher_cache)


@pytest.mark.run
def test_a_run_computes_what_parts_have_left(base, filled, tmp_path, capsys):
    config = with_cache(base, tmp_path, run_dir=str(tmp_path / "run"))
    experiment.fill_cache(config, Part(3, 3))
    rows = 32 * 14  # batches 1 to 14 of 21
    capsys.readouterr()
    experiment.run(config)
    assert capsys.readouterr().out.count(f"{rows} rows in") == 2
    assert_same_run(tmp_path / "run", pathlib.Path(filled.run_dir))


@pytest.mark.run
@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("5/4", "--part must be K/N with 1 <= K <= N, such as 2/4"),
        ("1/22", f"the {ROWS} training images make 21 of --batch_size=32"),
    ],
)
def test_the_command_refuses_what_is_no_part(base, tmp_path, part, message):
    config = with_cache(base, tmp_path, run_dir=str(tmp_path / "run"))
    done = part_command(config, tmp_path, part).finish()
    told = [x for x in done.stderr.splitlines() if x[:1] != "E"]  # not TensorFlow's
    assert done.returncode == 2 and len(told) == 1, done
    assert told[0].startswith("error: ") and message in told[0]
    assert not (tmp_path / "cache").exists()


def test_several_workers_do_not_fill_as_one(tmp_path):
    config = Config(teacher_cache=str(tmp_path), strategy="multi_worker")
    with pytest.raises(UserError, match="filled by each alone: .*--part=1/2 and --"):
        plan_cache(config)


# ---- what is refused


REFUSED = {  # method -> message
    "at": "'at' reads feature_1 .*, a feature map of .*Remove --teacher_cache",
    "dml": "'dml' modifies images within the step, or trains the teacher",
    "sskd": "'sskd' modifies images within the step",
    "ce": "'ce' uses no teacher output: remove --teacher_cache",
}


@pytest.mark.run
@pytest.mark.parametrize("method", REFUSED)
def test_methods_that_cannot_be_cached_say_so(base, tmp_path, method):
    config = with_cache(base, tmp_path, method=method, exits="last")
    data = Data(config)
    heads = ("projection",) if method == "sskd" else ()
    arguments = {"exits": "last", "input_shape": (8, 8, 1), "width": 0.125}
    teacher = tf_mskd.create_model("resnet10", 10, aux_heads=heads, **arguments)
    needs_one = create_method(method).needs_teacher
    distiller = build_distiller(config, data.source, teacher if needs_one else None)
    with pytest.raises(UserError, match=REFUSED[method]):
        CachedTeacher(distiller, tf.distribute.get_strategy(), data, config)
    assert not (tmp_path / "cache").exists()


@pytest.mark.run
def test_it_is_refused_before_a_teacher_is_trained(base, tmp_path):
    (tmp_path / "t.flags").write_text(to_flagfile(TINY))
    changes = {"teacher": "", "teacher_flagfile": str(tmp_path / "t.flags")}
    changes |= {"method": "at", "exits": "last", "run_dir": str(tmp_path / "run")}
    with pytest.raises(UserError, match="reads feature_1 .* a feature map"):
        experiment.run(with_cache(base, tmp_path, **changes))
    assert not (tmp_path / "t").exists()


@pytest.mark.run
def test_top_k_of_an_embedding_is_refused(base, tmp_path):
    config = with_cache(base, tmp_path, method="pkt", exits="last", cache_top_k=3)
    config = dataclasses.replace(config, run_dir=str(tmp_path / "run"))
    with pytest.raises(UserError, match="embedding_2 .* no classes to rank"):
        experiment.run(config)


@pytest.mark.run
def test_rows_in_the_wrong_order_stop_the_run(filled, tmp_path):
    """Every row whole, its sum right, but that of another example."""
    config = dataclasses.replace(filled, run_dir=str(tmp_path / "run"))
    data = Data(config)
    teacher = tf_mskd.load_model(config.teacher)
    distiller = build_distiller(config, data.source, teacher)
    distiller.compile(tf_mskd.SGD(0.05))
    strategy = tf.distribute.get_strategy()
    cache = CachedTeacher(distiller, strategy, data, config).cache
    ids = data.train_ids
    for view in range(2):
        rows = cache.read(view, ids)
        cache.write(view, ids, {n: np.roll(v, 1, axis=0) for n, v in rows.items()})
    try:
        with pytest.raises(UserError, match="does not match this teacher: .* rows"):
            experiment.run(config)
    finally:
        for view in range(2):
            rows = cache.read(view, ids)
            cache.write(view, ids, {n: np.roll(v, -1, 0) for n, v in rows.items()})
    CachedTeacher(distiller, strategy, data, config)


IDENTITY = {  # what changes -> the word of the message
    "seed of the views": ({"view_seed": 5}, "view_seed"),
    "augmentation": ({"augment": "none"}, "augmentation"),
    "crop": ({"crop_padding": 2}, "augmentation"),
    "size of the images": ({"image_size": 16}, "teacher .*data"),
    "number of views": ({"cached_augmentations": 3}, "views"),
}


@pytest.mark.run
@pytest.mark.parametrize("what", IDENTITY)
def test_a_cache_of_something_else_is_refused(filled, tmp_path, what):
    changes, word = IDENTITY[what]
    config = dataclasses.replace(filled, run_dir=str(tmp_path / "run"), **changes)
    if "image_size" in changes:  # a teacher must fit the images
        teacher = dataclasses.replace(TINY, width=0.125, epochs=1, **changes)
        experiment.run(dataclasses.replace(teacher, run_dir=str(tmp_path / "t")))
        config = dataclasses.replace(config, teacher=str(tmp_path / "t"))
    with pytest.raises(UserError, match=f"was made for another {word} .*there"):
        experiment.run(config)


@pytest.mark.run
def test_sizes_of_the_teachers_images_do_not_share_a_cache(tmp_path):
    config = with_cache(TINY, tmp_path, teacher="a", teacher_size=12)
    config, data = dataclasses.replace(config, method="mskd"), Data(config)
    image = keras.Input((None, None, 1))
    vector = keras.layers.GlobalAveragePooling2D()(image)
    teacher = keras.Model(image, keras.layers.Dense(10)(vector))
    for size in (12, 16):
        config = dataclasses.replace(config, teacher_size=size)
        distiller = build_distiller(config, data.source, teacher)
        arguments = (distiller, tf.distribute.get_strategy(), data, config)
        if size == 12:
            CachedTeacher(*arguments)
    with pytest.raises(UserError, match=r"teacher size \(there 12, here 16\)"):
        CachedTeacher(*arguments)


@pytest.mark.run
def test_another_seed_shares_the_cache(filled, tmp_path, capsys):
    changes = {"seed": 1, "run_dir": str(tmp_path / "run"), "epochs": 1}
    config = dataclasses.replace(filled, **changes)
    new = set(Data(config).train_ids) - set(Data(filled).train_ids)  # drawn by seed
    assert 0 < len(new) < ROWS
    experiment.run(config)
    assert capsys.readouterr().out.count(f"1/2, {len(new)} rows in") == 1


@pytest.mark.run
def test_several_workers_want_a_full_cache(filled, monkeypatch, tmp_path):
    config = with_cache(filled, tmp_path)
    data = Data(config)
    distiller = build_distiller(config, data.source, tf_mskd.load_model(config.teacher))
    cached = CachedTeacher(distiller, tf.distribute.get_strategy(), data, config)
    monkeypatch.setattr(
        "tf_mskd.teacher_cache.cached_teacher.is_multi_worker", lambda strategy: True
    )
    with pytest.raises(UserError, match=f"lacks {ROWS} rows; several workers"):
        cached.prepare(0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cache_top_k": 3}, "--cache_top_k needs --teacher_cache"),
        (
            {
                "teacher_cache": "a",
                "untrained_teacher": True,
                "teacher_flagfile": "t.flags",
            },
            "stores a trained teacher's outputs, --untrained_teacher",
        ),
    ],
)
def test_flags_that_do_not_go_together(settings, message):
    with pytest.raises(UserError, match=message):
        Config(**settings)


def test_views_and_seed_by_default():
    assert (Config().views, Config(seed=3).augment_seed) == (0, 3)
    cached = Config(seed=3, teacher_cache="a")
    assert (cached.views, cached.augment_seed) == (8, 0)
    assert Config(seed=3, view_seed=4).augment_seed == 4
