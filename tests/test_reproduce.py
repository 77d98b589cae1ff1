"""tools/reproduce.py: the cells of a table, slices of time, the estimate."""

import dataclasses
import re
import runpy
import subprocess
import sys
import types

import numpy as np
import pytest

import tf_mskd
from tests.support import PLAIN, ROOT
from tf_mskd.data import sources
from tf_mskd.data.npz_file import write_npz
from tf_mskd.models.saving import save_model
from tf_mskd.runs.flags import read_flags
from tf_mskd.runs.run_folder import RunFolder
from tf_mskd.utils.errors import UserError

TOOL = ROOT / "tools" / "reproduce.py"
NARROW = [
    "--pair=vgg13_vgg8",
    "--methods=kd,mskd",
    "--width=0.0625",
    "--batch_size=32",
    "--train_fraction=0.05",
    "--epochs=1",
    "--tensorboard=false",
]


@pytest.fixture(scope="module")
def tool():
    return runpy.run_path(str(TOOL))


def test_the_networks_come_first_then_the_methods(tool):
    cells = tool["cells_of"]("cifar100", "vgg13_vgg8", ["kd", "oto", "fitnet"])
    assert list(cells) == [
        "vgg13",
        "vgg8",
        "vgg13_vgg8_kd",
        "vgg13_vgg8_oto",
        "vgg13_vgg8_fitnet",
    ]
    assert read_flags(cells["vgg8"]).method == "ce"
    oto = read_flags(cells["vgg13_vgg8_oto"])
    assert (oto.method, oto.model, oto.epochs) == ("oto", "vgg8", 240)
    assert "fitnet" in read_flags(cells["vgg13_vgg8_fitnet"]).method


@pytest.mark.parametrize(
    "cell, told",
    [
        (("cifar10", "vgg13_vgg8", []), "'cifar10'; did you mean 'cifar100'"),
        (("cifar100", "vgg13_vgg9", []), "'vgg13_vgg9'; did you mean 'vgg13_vgg8'"),
        (("cifar100", "vgg13_vgg8", ["okd"]), "Unknown method of the table 'okd'"),
    ],
)
def test_a_cell_that_the_table_lacks_is_named(cell, told, tool):
    with pytest.raises(UserError, match=re.escape(told)):
        tool["cells_of"](*cell)


def test_every_cell_of_the_tables_has_flags(tool):
    for pair in ("vgg13_vgg8", "resnet152_resnet10", "wrn_40_2_wrn_16_2"):
        for cell in tool["cells_of"]("cifar100", pair, []).values():
            read_flags(cell)


def test_a_cell_of_imagenet_has_its_networks_and_its_work(tool):
    """ResNet-18: 6 * 1.814 GMAC an image; ResNet-34 behind it: 2 * 3.664 GMAC."""
    cells = tool["cells_of"]("imagenet2012", "resnet34_resnet18", ["kd_imagenet"])
    assert list(cells) == ["resnet34", "resnet18", "resnet34_resnet18_kd_imagenet"]
    config = read_flags(cells["resnet34_resnet18_kd_imagenet"])
    operations, size = tool["_work"](types.SimpleNamespace(config=config))
    wanted = (6 * 1.814e9 + 2 * 3.664e9) * 1_281_167 * 100
    assert operations == pytest.approx(wanted, rel=1e-3)
    assert size == pytest.approx(5 * 4 * 11.69e6, rel=1e-3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Real digits, in three channels, as CIFAR-100 has them."""
    source, path = sources.load_source("digits", image_size=32), None
    parts = {
        name: dataclasses.replace(split, images=np.repeat(split.images, 3, axis=-1))
        for name, split in (("train", source.train), ("test", source.test))
    }
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    write_npz(path, dataclasses.replace(source, **parts))
    return path


def stand_in(tool, data, folder):
    """The run of the teacher as if it were finished, with a narrow network."""
    flags = tool["cells_of"]("cifar100", "vgg13_vgg8", [])["vgg13"]
    config = read_flags(flags, run_dir=f"{folder}/cifar100/vgg13", data_dir=str(data))
    config = dataclasses.replace(config, tensorboard=False)
    shape = {"width": 1 / 16, "input_shape": (32, 32, 3)}
    with RunFolder(config) as run:
        save_model(
            tf_mskd.create_model("vgg13", 10, exits="last", **shape), run.student
        )
        run.write_result(
            dataclasses.replace(PLAIN, model="vgg13", test={"exit_4": 0.5})
        )


def reproduce(*arguments):
    command = [sys.executable, str(TOOL), *NARROW, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.run
def test_cells_run_in_slices_until_the_table_is_full(tool, data, tmp_path):
    where = f"--data_dir={data}", f"--output={tmp_path}"
    told = reproduce(*where, "--dry_run")
    assert "vgg13_vgg8_mskd" in told and "TFLOP/s, measured on this machine" in told
    assert re.search(r"^[\d.]+ hours at .* and [\d.]+ GB of disk\.$", told, re.M)
    assert not (tmp_path / "cifar100").exists()
    stand_in(tool, data, tmp_path)
    told = reproduce(*where, "--minutes=0.001")
    assert "Stopped" in told and "missing: " in told
    told = reproduce(*where)
    assert "missing" not in told
    assert re.search(r"vgg13_vgg8_kd .* kd .* last .* 72\.98 ", told)
    assert re.search(r"vgg13_vgg8_mskd .* ensemble .* 75\.83 ", told)
    assert "train_fraction" in told  # what differs from the published run
    assert "Every cell is there." in reproduce(*where, "--dry_run")
