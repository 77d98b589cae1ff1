"""The Tiny ImageNet builder and the command that prepares data sets."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.data import real_data
from tf_mskd.data import prepare, tiny_imagenet
from tf_mskd.data.archive import open_archive
from tf_mskd.data.sources import load_source
from tf_mskd.utils.errors import UserError

ROOT = tiny_imagenet.ROOT
WNIDS = ("n03", "n01", "n02")


def jpeg(image, mode):
    picture = Image.fromarray(image[..., 0]).resize((64, 64)).convert(mode)
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=95)
    return content.getvalue()


def small_archive(changes=None):
    """{member: bytes} in the official layout: three digits, grey and colour JPEGs."""
    digits = load_source("digits")
    members = {f"{ROOT}/wnids.txt": "\n".join(WNIDS).encode()}
    annotations = []
    for label, wnid in enumerate(WNIDS):
        train = digits.train.images[digits.train.labels == label][:4]
        for k, image in enumerate(train):
            name = f"{ROOT}/train/{wnid}/images/{wnid}_{k}.JPEG"
            members[name] = jpeg(image, "L" if k == 0 else "RGB")
        members[f"{ROOT}/train/{wnid}/{wnid}_boxes.txt"] = b"x"
        for image in digits.test.images[digits.test.labels == label][:2]:
            file = f"val_{len(annotations)}.JPEG"
            annotations.append(f"{file}\t{wnid}\t0\t0\t62\t62")
            members[f"{ROOT}/val/images/{file}"] = jpeg(image, "RGB")
    text = "\n".join(annotations).encode()
    members[f"{ROOT}/val/val_annotations.txt"] = text
    members.update(changes or {})
    return {name: content for name, content in members.items() if content is not None}


def write_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return str(path)


def run(capsys, *arguments):
    """(exit code, standard output, standard error) of the command line."""
    code = prepare.main(["prepare", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_archive_is_prepared_and_loaded(tmp_path, capsys):
    hostile = {"../outside.JPEG": b"x", f"{ROOT}/train/../../n01/images/a.JPEG": b"x"}
    members = small_archive(hostile)
    archive = write_zip(tmp_path / "any.zip", members)
    data_dir = tmp_path / "deep" / "data"
    arguments = ("--dataset=tiny_imagenet", f"--archive={archive}")
    code, out, _ = run(capsys, *arguments, f"--data_dir={data_dir}")
    assert code == 0 and "Wrote tiny_imagenet/1.0.0" in out
    assert "train 12, test 6 examples" in out
    assert not list(tmp_path.rglob("outside*")), "a member left the archive"

    source = load_source("tiny_imagenet", data_dir)
    assert source.class_names == ("n01", "n02", "n03") and source.num_classes == 3
    assert np.array_equal(np.bincount(source.train.labels), [4, 4, 4])
    assert np.array_equal(np.bincount(source.test.labels), [2, 2, 2])
    grey = members[f"{ROOT}/train/n02/images/n02_0.JPEG"]
    grey = np.asarray(Image.open(io.BytesIO(grey)).convert("RGB")).astype(int)
    candidates = source.train.images[source.train.labels == 1].astype(int)
    assert np.abs(candidates - grey).max(axis=(1, 2, 3)).min() == 0  # as Pillow does

    code, out, _ = run(capsys, "--dataset=tiny_imagenet", f"--data_dir={data_dir}")
    assert code == 0 and out.startswith("Already prepared: tiny_imagenet/1.0.0")


def test_extracted_folder_lists_and_reads_like_the_zip(tmp_path):
    members = small_archive()
    for name, content in members.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    zipped = open_archive(write_zip(tmp_path / "a.zip", members), ROOT)
    for path in (tmp_path, tmp_path / ROOT):
        folder = open_archive(path, ROOT)
        assert folder.names == zipped.names
        assert tiny_imagenet.list_train(folder, set(WNIDS))[0] == (
            f"{ROOT}/train/n01/images/n01_0.JPEG",
            "n01",
        )
        with pytest.raises(UserError, match="no member 'nothing'"):
            folder.read("nothing")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"{ROOT}/wnids.txt": None}, "no member .*wnids.txt"),
        ({f"{ROOT}/wnids.txt": b"n01\nn02"}, "Class 'n03' of .* is not in wnids.txt"),
        ({f"{ROOT}/wnids.txt": b"n01 n02 n03 n04"}, "no training images of 1 .* n04"),
        ({f"{ROOT}/val/val_annotations.txt": None}, "no member .*val_annotations"),
        (
            {f"{ROOT}/val/val_annotations.txt": b"../x\tn01"},
            "Line 1 of val_annotations",
        ),
        ({f"{ROOT}/val/images/val_3.JPEG": None}, "no member .*val_3.JPEG"),
        ({f"{ROOT}/val/images/val_3.JPEG": b"junk"}, "Cannot decode .*val_3.JPEG"),
        (
            {f"{ROOT}/train/n01/images/n01_1.JPEG": b"\0" * (17 * 2**20)},
            "n01_1.JPEG' is too large",
        ),
    ],
)
def test_broken_archive_is_one_line_and_exit_code_2(tmp_path, capsys, changes, message):
    archive = write_zip(tmp_path / "a.zip", small_archive(changes))
    arguments = ("--dataset=tiny_imagenet", f"--data_dir={tmp_path / 'data'}")
    code, _, err = run(capsys, *arguments, f"--archive={archive}")
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(lines) == 1 and "Traceback" not in err
    with pytest.raises(UserError, match=message):
        raise UserError(lines[0])


def test_wrong_image_size_and_damaged_member_are_refused(tmp_path):
    content = io.BytesIO()
    Image.new("RGB", (32, 64)).save(content, "JPEG")
    with pytest.raises(UserError, match="'a.JPEG' must be 64x64, got 32x64"):
        tiny_imagenet.check_image("a.JPEG", content.getvalue())
    path = tmp_path / "a.zip"
    write_zip(path, {"a": b"some bytes"})
    path.write_bytes(path.read_bytes().replace(b"some bytes", b"SOME bytes"))
    with pytest.raises(UserError, match="Cannot read archive member 'a'"):
        open_archive(path, ROOT).read("a")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--dataset is needed"),
        (["--dataset=cifar100"], "--data_dir is needed"),
        (["--dataset=digits", "--data_dir=x"], "'digits' needs no preparation"),
        (["--dataset=cifar100", "--data_dir=x", "--archive=y"], "--archive is for"),
        (["--dataset=cifra100", "--data_dir=x"], "did you mean 'cifar100'"),
        (
            ["--dataset=tiny_imagenet", "--data_dir=x"],
            "name its archive with",
        ),
        (["--datset=cifar100"], "Unknown flag '--datset'; did you mean '--dataset'"),
        (["cifar100"], "Expected flags only, got 'cifar100'"),
    ],
)
def test_mistakes_on_the_command_line(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    prepare.FLAGS.unparse_flags()
    for name in ("dataset", "data_dir", "archive"):
        prepare.FLAGS[name].unparse()
    code, out, err = run(capsys, *arguments)
    assert code == (1 if "Unknown flag" in message else 2) and out == ""
    assert message in err and err.startswith("error: ") and err.count("\n") == 1


def test_missing_and_foreign_archives(tmp_path, capsys):
    arguments = ["--dataset=tiny_imagenet", f"--data_dir={tmp_path / 'data'}"]
    code, _, err = run(capsys, *arguments, f"--archive={tmp_path / 'no.zip'}")
    assert code == 2 and "no.zip does not exist" in err
    (tmp_path / "text.zip").write_text("text")
    code, _, err = run(capsys, *arguments, f"--archive={tmp_path / 'text.zip'}")
    assert code == 2 and "Cannot open archive" in err


def test_help_names_every_flag(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0 and "--archive" in out and "--data_dir" in out


def test_real_archive_lists_and_decodes():
    members = open_archive(real_data.tiny_imagenet_zip(), ROOT)
    wnids = set(members.read(f"{ROOT}/wnids.txt").decode().split())
    train = tiny_imagenet.list_train(members, wnids)
    test = tiny_imagenet.list_test(members, wnids)
    assert len(wnids) == 200 and len(train) % 200 == 0 and len(test) == 10_000
    for name, wnid in train[:300:10] + test[:30]:
        assert wnid in wnids
        tiny_imagenet.check_image(name, members.read(name))


@pytest.mark.slow
def test_real_archive_prepares_and_loads(tmp_path, capsys):
    archive = real_data.tiny_imagenet_zip()
    arguments = ("--dataset=tiny_imagenet", f"--data_dir={tmp_path}")
    assert run(capsys, *arguments, f"--archive={archive}")[0] == 0
    source = load_source("tiny_imagenet", tmp_path)
    assert source.num_classes == 200 and source.image_shape == (64, 64, 3)
    assert len(set(np.bincount(source.train.labels))) == 1
    assert np.array_equal(np.bincount(source.test.labels), [50] * 200)
