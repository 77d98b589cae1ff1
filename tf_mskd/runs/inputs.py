"""What a command reads, looked for before TensorFlow is imported."""

import os
import pathlib
import re

from tf_mskd.runs import own_model
from tf_mskd.runs.config import Config, differing
from tf_mskd.runs.flags import read_flagfile
from tf_mskd.runs.stages import required_config
from tf_mskd.utils import files
from tf_mskd.utils.choices import MODELS, WIDE_RESNET
from tf_mskd.utils.errors import UserError, nearest, unknown_name
from tf_mskd.utils.run_paths import RunPaths

METHODS = pathlib.Path(__file__).parents[1] / "methods"


def check_finished_run(run_dir: str | os.PathLike, flag: str = "run_dir") -> None:
    """Raises `UserError` unless the folder is that of a finished run.

    Args:
        run_dir: str or path of the run folder.
        flag: str, name of the flag for the message.
    """
    if not run_dir or not RunPaths(run_dir).result.is_file():
        raise UserError(
            f"--{flag}={str(run_dir)!r} holds no finished run (no result.json): "
            "name the folder of a run that tf_mskd.train has finished."
        )


def check_picture(path: str) -> None:
    """Raises `UserError` unless --output is empty or ends in ".png"."""
    if path and pathlib.Path(path).suffix.lower() != ".png":
        raise UserError(f"--output={path} must be a PNG: end it in .png.")


def read_image_choice(text: str) -> int | str:
    """Returns the number of a test image, or the path of an image file.

    Raises:
        UserError: if it is neither.

    Example:
        >>> read_image_choice("17")
        17
    """
    if re.fullmatch(r"-?\d{1,18}", text):
        return int(text)
    if not os.path.isfile(text):
        raise UserError(
            f"--images={text} is neither the number of a test image nor a file: give "
            "numbers from 0, or paths of image files."
        )
    return text


def check_inputs(config: Config) -> None:
    """Raises `UserError` if a run would not find what it reads.

    Looks for files of networks, the teacher's task and the data folder: contents need
    TensorFlow.
    """
    own_model.check_file("model", config.model)
    own_model.check_weights(config.init_weights)
    if own_model.kind_of(config.teacher) == "name" and config.teacher:
        own_model.check_named_teacher(config.teacher)
        files.model_file(config.teacher)
    own_model.check_file("teacher", config.teacher)
    _check_task(config)
    folder = os.path.expanduser(config.data_dir)
    kind, there = "folder", os.path.isdir(folder)
    if files.is_npz(folder):
        kind, there = "file", os.path.isfile(folder)
    if config.data_dir and config.dataset != "digits" and not there:
        raise UserError(
            f"No {kind} {config.data_dir!r} for data set {config.dataset!r}: name "
            "another --data_dir, or prepare it with python -m tf_mskd.data.prepare."
        )


def _check_task(config):
    """The answers of a teacher that a run has trained are those of the student."""
    teacher = required_config(config, "teacher")
    flagfile = RunPaths(config.teacher).flags if config.teacher else None
    if flagfile and flagfile.is_file():
        teacher = read_flagfile(flagfile)
    if teacher and teacher.task != config.task:
        raise UserError(
            f"The teacher answers the task {teacher.task!r}, the student "
            f"{config.task!r}: train a teacher with --task={config.task}."
        )


def check_names(config: Config) -> None:
    """Raises `UserError` for a network or a method that the package does not have.

    For commands alone: in Python, methods from anywhere can be registered.
    """
    model = config.model
    if own_model.kind_of(model) == "name" and not (
        model in MODELS or re.fullmatch(WIDE_RESNET, model)
    ):
        raise UserError(
            f"Unknown model {model!r}{nearest(model, MODELS, 0.6)} Known: "
            f"{', '.join(MODELS)}; or your own, such as {own_model.FORMS}."
        )
    methods = [path.stem for path in METHODS.glob("[!_]*.py")]
    for name in config.method.split(","):
        if name.strip() not in methods:
            raise unknown_name("method", name.strip(), methods)


def check_same_run(config: Config) -> None:
    """Raises `UserError` if the run folder is that of a run with other settings."""
    flagfile = RunPaths(config.run_dir).flags
    if not flagfile.exists():
        return
    differences = differing(read_flagfile(str(flagfile)), config)
    if differences:
        raise UserError(
            f"{config.run_dir} holds a run with other flags: {'; '.join(differences)}. "
            "Use these flags or another --run_dir."
        )
