"""The run that another run needs first: a flagfile's, or a stage added to it.

A stage prepares a teacher or a student: heads on a trained teacher, say. Its flagfile
holds what differs from the run that it starts from, so one flagfile serves all pairs.
"""

import pathlib

from tf_mskd.runs.config import Config
from tf_mskd.runs.data_settings import SOURCE_CROP, on_files
from tf_mskd.runs.flags import find_flagfile, read_flag, read_flagfile, read_flags
from tf_mskd.utils.errors import UserError, nearest

STAGES = "configs/stages"  # for stages that --stage_dir does not have


def required_config(config: Config, role: str, **overrides) -> Config | None:
    """Reads the settings of the run that `config` needs first.

    Args:
        config: `Config`.
        role: str, "teacher" or "init".
        **overrides: settings that win over the flagfiles'.

    Returns:
        `Config`, or None if no run is needed for the role.

    Raises:
        UserError: if a flagfile is missing or holds a mistake.

    Example:
        >>> student = read_flagfile("configs/digits/oto.flags")
        >>> teacher = required_config(student, "teacher")
        >>> teacher.model, teacher.exits, teacher.init_flagfile
        ('resnet18', 'all', 'configs/digits/teacher.flags')
    """
    flagfile, stage = _flagfile(config, role), getattr(config, f"{role}_stage")
    if not flagfile:
        return None
    if not stage:
        return read_flagfile(flagfile, **overrides)
    arguments = [f"--flagfile={flagfile}"]
    if role == "teacher":
        arguments.append(f"--init_flagfile={flagfile}")
    whole = [*arguments, f"--flagfile={_stage_flagfile(config, stage)}"]
    return read_flags(_with_windows(arguments, whole), **overrides)


def _with_windows(first, whole):
    """A stage after a run on windows of files has them too: its flags name others."""
    augment = read_flag(whole, "augment")
    if SOURCE_CROP in augment or SOURCE_CROP not in read_flag(first, "augment"):
        return whole
    return [*whole, f"--augment={','.join(on_files(augment))}"]


def required_name(config: Config, role: str) -> str:
    """Returns the name of that run's folder.

    Example:
        >>> required_name(read_flagfile("configs/digits/oto.flags"), "teacher")
        'teacher_exits'
    """
    stem, stage = pathlib.Path(_flagfile(config, role)).stem, f"{role}_stage"
    parts = [stem, getattr(config, stage), "init" if role == "init" else ""]
    return "_".join(filter(None, parts)) if getattr(config, stage) else stem


def _flagfile(config, role):
    if role == "teacher":
        return config.teacher_flagfile
    return config.pair_flagfile if config.init_stage else config.init_flagfile


def _stage_flagfile(config, stage):
    folders = [folder for folder in (config.stage_dir, STAGES) if folder]
    paths = [find_flagfile(f"{folder}/{stage}.flags") for folder in folders]
    found = [path for path in paths if pathlib.Path(path).is_file()]
    if not found:
        stages = {p.stem for path in paths for p in _siblings(path)}
        raise UserError(
            f"No stage {stage!r} in {' or '.join(folders)}{nearest(stage, stages)} "
            f"Write {paths[0]}, or use one of {', '.join(sorted(stages))}."
        )
    return found[0]


def _siblings(path):
    return pathlib.Path(path).parent.glob("*.flags")
