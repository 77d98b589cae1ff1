"""Runs whose images stay in their files end as those that decoded them first."""

import dataclasses
import signal

import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tests.support import OWN, assert_same_run, start, store
from tf_mskd.data.sources import load_source
from tf_mskd.runs import experiment, source
from tf_mskd.utils.errors import UserError

pytestmark = pytest.mark.run


def write_digits(root):
    digits = load_source("digits")
    for split, part, count in (("train", digits.train, 64), ("test", digits.test, 16)):
        for label in range(10):
            folder = root / split / str(label)
            folder.mkdir(parents=True)
            images = part.images[part.labels == label][:count, ..., 0]
            for number, image in enumerate(images):
                wide = Image.fromarray(image).resize((12, 8 + number % 3))
                wide.save(folder / f"{number:02}.png")


def config_of(root, run_dir, memory):
    return dataclasses.replace(
        OWN,
        dataset="folder",
        data_dir=str(root),
        image_size=8,
        augment="crop,flip",
        epochs=2,
        memory=memory,
        run_dir=str(run_dir),
    )


@pytest.fixture(scope="module")
def decoded(tmp_path_factory):
    """The pictures, and a finished run that has decoded them first."""
    folder = tmp_path_factory.mktemp("decoded")
    write_digits(folder / "pictures")
    experiment.run(config_of(folder / "pictures", folder / "run", "decoded"))
    return folder


def test_a_killed_run_of_streamed_images_ends_as_one_of_decoded_images(
    decoded, tmp_path
):
    """The kill comes within an epoch; the rest of the run is that of the other."""
    folder = tmp_path / "run"
    config = config_of(decoded / "pictures", folder, "stream")
    done = start(folder, config, ["SIGKILL", "after run 5"]).finish()
    assert done.returncode == -signal.SIGKILL, done
    done = start(folder, config).finish()
    assert done.returncode == 0, done
    assert_same_run(folder, decoded / "run")


def test_a_bad_file_ends_the_run_in_one_line(decoded, tmp_path):
    pictures = tmp_path / "pictures"
    write_digits(pictures)
    (pictures / "train" / "7" / "03.png").write_bytes(b"no image")
    (pictures / "test" / "1" / "02.png").write_bytes(b"no image")
    config = config_of(pictures, tmp_path / "run", "stream")
    config = dataclasses.replace(config, train_fraction=1.0)
    with pytest.raises(UserError, match=r"^Cannot read image .*0[23].png .*; repair"):
        experiment.run(config)
    config = dataclasses.replace(
        config, run_dir=str(tmp_path / "skipping"), bad_images="skip"
    )
    assert experiment.run(config).test


def test_a_run_keeps_where_the_images_of_a_set_lie(tmp_path):
    digits = load_source("digits")
    rows = {"train": (digits.train.images[:30], digits.train.labels[:30])}
    image = tfds.features.Image(shape=(8, 8, 1))
    store(tmp_path, "few", rows | {"test": rows["train"]}, image)
    config = dataclasses.replace(
        OWN,
        dataset="few",
        data_dir=str(tmp_path),
        memory="stream",
        run_dir=str(tmp_path / "run"),
    )
    source.load(config)
    assert not (tmp_path / "run").exists()  # a look at the data makes no run folder
    (tmp_path / "run").mkdir()
    source.load(config)
    kept = sorted(path.name for path in (tmp_path / "run/data_index").iterdir())
    assert kept == ["test.npz", "train.npz"]
