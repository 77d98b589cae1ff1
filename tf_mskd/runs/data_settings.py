"""What settings of data and augmentation one flag alone cannot show."""

import typing
from collections.abc import Sequence

from tf_mskd.utils import choices as names
from tf_mskd.utils.errors import UserError

SOURCE_CROP = "source_crop"
CROPS = ("crop", "resized_crop")
READS = {  # setting -> the augmentations that read it
    "crop_scale": ("resized_crop", "source_crop"),
    "crop_ratio": ("resized_crop", "source_crop"),
    "randaugment_operations": ("randaugment",),
    "randaugment_magnitude": ("randaugment",),
    "erase_fill": ("erase",),
}


def check_data(config: typing.Any, set_here: list[str]) -> None:
    """Raises `UserError` for settings of the data that do not fit together.

    Args:
        config: `Config`.
        set_here: names of the settings that are not at their defaults.
    """
    _check_options(config, set_here)
    _check_fraction(config)
    _check_mixing(config)
    _check_repeats(config)
    _check_patches(config)
    _check_files(config)


def on_files(augment: Sequence[str]) -> tuple[str, ...]:
    """Returns an augmentation with windows of image files in place of its crop.

    Args:
        augment: names of augmentations, in order.

    Example:
        >>> on_files(["jda", "crop", "flip"]), on_files(["none"])
        (('source_crop', 'jda', 'flip'), ('source_crop',))
    """
    others = (*CROPS, SOURCE_CROP, "none")
    return SOURCE_CROP, *(name for name in augment if name not in others)


def _check_options(config, set_here):
    listed = {*config.augment, *config.second_augment}
    for name, readers in READS.items():
        if name in set_here and not listed & set(readers):
            raise UserError(
                f"--{name} is for the augmentation {' or '.join(map(repr, readers))}, "
                f"which --augment={','.join(config.augment)} and --second_augment lack:"
                f" list it{_such_as(config, readers)}, or drop the flag."
            )


def _such_as(config, readers):
    """What to write where a method's flagfile has replaced the windows of files."""
    if SOURCE_CROP not in readers or _is_decoded(config):
        return ""
    return f", --augment={','.join(on_files(config.augment))}"


def _is_decoded(config):
    return config.dataset in names.ALWAYS_DECODED or config.patch_size


def _check_fraction(config):
    listed = {*config.augment, *config.second_augment}
    strong = names.STRONG_AUGMENTATIONS
    if config.augment_fraction != 1 and not listed & set(strong):
        raise UserError(
            f"--augment_fraction={config.augment_fraction} needs "
            f"{', '.join(strong[:-1])} or {strong[-1]} in --augment or "
            "--second_augment: list one, or drop the fraction."
        )


def _check_mixing(config):
    for name in ("mixup", "cutmix"):
        value = getattr(config, name)
        if value and config.teacher_cache:
            raise UserError(
                f"--{name}={value:g} mixes images anew in each step, --teacher_cache "
                "stores the teacher's outputs of unmixed ones: drop one of them."
            )


def _check_repeats(config):
    if 0 < config.views < config.repeats:
        raise UserError(
            f"--repeats={config.repeats} needs as many --cached_augmentations, of which"
            f" there are {config.views}: raise them, or lower the repeats."
        )


def _check_patches(config):
    if config.patch_size and config.dataset != "folder":
        raise UserError(
            f"--patch_size={config.patch_size} is for --dataset=folder, got "
            f"--dataset={config.dataset}: drop it."
        )
    if config.patch_size and config.resize != "crop":
        raise UserError(
            f"--resize={config.resize} is for whole images, --patch_size="
            f"{config.patch_size} reads square patches: drop one of them."
        )
    if config.patch_size and config.validation_fraction:
        raise UserError(
            "--validation_fraction would put patches of one picture on both sides: "
            "leave it at 0 with --patch_size."
        )


def _check_files(config):
    second = config.second_augment or config.augment
    if config.cuts_files != (SOURCE_CROP in second):
        lacking = "second_augment" if config.cuts_files else "augment"
        instead = ",".join(on_files(getattr(config, lacking)))
        raise UserError(
            "source_crop must stand in both --augment and --second_augment, or in "
            f"neither, got {','.join(config.augment)} and {','.join(second)}: set "
            f"--{lacking}={instead}."
        )
    if config.cuts_files and config.memory == "decoded":
        raise UserError(
            "source_crop cuts windows of image files, --memory=decoded keeps no files: "
            "leave --memory at auto, or use resized_crop."
        )
    given = {
        "memory": config.memory == "stream",
        "bad_images": config.skip_bad,
        "augment": config.cuts_files,
        "centre_crop": config.centre_crop != 1,
    }
    for name, needed in given.items():
        if needed and _is_decoded(config):
            value = getattr(config, name)
            value = ",".join(value) if name == "augment" else value
            raise UserError(
                f"--{name}={value} is for whole images of a folder or TFDS set, got "
                f"--dataset={config.dataset} and --patch_size={config.patch_size}: "
                "drop it."
            )
