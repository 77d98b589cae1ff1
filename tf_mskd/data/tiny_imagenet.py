"""Tiny ImageNet as a TensorFlow Datasets builder over the official archive."""

import io
import pathlib
import re

import tensorflow_datasets as tfds

from tf_mskd.data.archive import FolderMembers, ZipMembers, open_archive
from tf_mskd.data.decode import read_image
from tf_mskd.utils.errors import UserError

ROOT = "tiny-imagenet-200"
TRAIN_NAME = re.compile(rf"{ROOT}/train/(n\d+)/images/[\w.-]+\.JPEG")


class TinyImagenet(tfds.core.GeneratorBasedBuilder):
    """64x64 photographs in 200 classes of ImageNet.

    Splits: `train` (500 images a class in the full archive) and `test`, which is the
    archive's validation split (50 a class): the archive's own test images carry no
    labels. Class k is the k-th identifier of `wnids.txt` in sorted order, the order
    that folder-based loaders give. Greyscale JPEGs are read with three equal channels.
    An archive with fewer images or classes is read just the same.

    `archive`, if set, is the zip file or the extracted folder; otherwise the first
    `tiny-imagenet-200*` in TFDS' manual directory is taken. Members of a zip are read
    in memory: nothing is ever extracted.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Download tiny-imagenet-200.zip from http://cs231n.stanford.edu and run "
        "python -m tf_mskd.data.prepare --dataset=tiny_imagenet "
        "--archive=tiny-imagenet-200.zip --data_dir=DIR"
    )
    archive = None
    # Nothing is downloaded, so there is no checksum file to look for beside the code;
    # finding one makes TFDS 4.9.10 import a package that it does not install.
    code_path = None

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="64x64 photographs in 200 classes of ImageNet.",
            homepage="http://cs231n.stanford.edu/",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(64, 64, 3), encoding_format="jpeg"
                    ),
                    # Named from wnids.txt when the archive is opened.
                    "label": tfds.features.ClassLabel(),
                    "file": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        archive = self.archive or _find_archive(dl_manager.manual_dir)
        members = open_archive(archive, ROOT)
        wnids = sorted(members.read(f"{ROOT}/wnids.txt").decode().split())
        self.info.features["label"].names = wnids
        train = list_train(members, set(wnids))
        test = list_test(members, set(wnids))
        return {
            "train": self._generate_examples(members, train),
            "test": self._generate_examples(members, test),
        }

    def _generate_examples(self, members, labelled):
        for name, wnid in labelled:
            content = members.read(name)
            check_image(name, content)
            row = {"image": io.BytesIO(content), "label": wnid, "file": name}
            yield name, row


def list_train(
    members: ZipMembers | FolderMembers, wnids: set[str]
) -> list[tuple[str, str]]:
    """[(member name, wnid)] of the training images; other members are passed over."""
    found = []
    for name in members.names:
        match = TRAIN_NAME.fullmatch(name)
        if match and match[1] not in wnids:
            raise UserError(f"Class {match[1]!r} of {name!r} is not in wnids.txt.")
        if match:
            found.append((name, match[1]))
    empty = wnids - {wnid for _, wnid in found}
    if empty or not wnids:
        raise UserError(
            f"Archive has no training images of {len(empty)} classes in wnids.txt"
            f"{', such as ' + min(empty) if empty else ''}; use the official archive."
        )
    return found


def list_test(
    members: ZipMembers | FolderMembers, wnids: set[str]
) -> list[tuple[str, str]]:
    """[(member name, wnid)] of the official validation images, in annotation order."""
    found = []
    annotations = members.read(f"{ROOT}/val/val_annotations.txt").decode()
    for number, line in enumerate(annotations.splitlines(), start=1):
        file, _, rest = line.partition("\t")
        wnid = rest.split("\t")[0]
        if wnid not in wnids or not re.fullmatch(r"[\w.-]+\.JPEG", file):
            raise UserError(
                f"Line {number} of val_annotations.txt is not valid: {line!r}."
            )
        found.append((f"{ROOT}/val/images/{file}", wnid))
    return found


def check_image(name: str, content: bytes) -> None:
    """Raises `UserError` unless `content` decodes to a 64x64 image."""
    try:
        size = read_image(io.BytesIO(content)).size
    except ValueError as error:
        raise UserError(f"Cannot decode archive member {name!r} ({error}).") from error
    if size != (64, 64):
        raise UserError(f"Image {name!r} must be 64x64, got {size[0]}x{size[1]}.")


def _find_archive(manual_dir):
    found = sorted(pathlib.Path(manual_dir).glob(f"{ROOT}*"))
    if not found:
        raise UserError(f"Found no {ROOT}.zip in {manual_dir}; set --archive.")
    return found[0]
