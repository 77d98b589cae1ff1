"""What settings of student, teacher and phases one flag alone cannot show."""

import typing

from tf_mskd.runs import own_model
from tf_mskd.utils.errors import UserError


def check_networks(config: typing.Any) -> None:
    """Raises `UserError` for settings of the networks that do not fit together.

    Args:
        config: `Config`.
    """
    _check_teacher(config)
    _check_stages(config)
    _check_init(config)
    _check_cache(config)
    _check_phases(config)
    if config.freeze == "backbone" and not (
        config.has_init
        or config.init_weights
        or own_model.may_have_weights("model", config.model)
    ):
        raise UserError(
            "--freeze=backbone needs --init_flagfile, --init_weights or a --model of "
            f"your own that has weights, --model={config.model} starts from random "
            "ones."
        )


def _check_teacher(config):
    if config.teacher and config.teacher_flagfile:
        raise UserError("Give --teacher or --teacher_flagfile, not both.")
    if config.untrained_teacher and not config.teacher_flagfile:
        raise UserError("--untrained_teacher needs --teacher_flagfile, which is empty.")
    if config.teacher_size and not (config.teacher or config.teacher_flagfile):
        raise UserError(
            f"--teacher_size={config.teacher_size} needs a teacher: name one with "
            "--teacher_flagfile or --teacher."
        )


def _check_stages(config):
    if config.teacher_stage and not config.teacher_flagfile:
        raise UserError(
            f"--teacher_stage={config.teacher_stage} needs --teacher_flagfile, which "
            "is empty: name it, or set --teacher_stage= if --teacher has been through "
            "this stage."
        )
    if config.teacher_stage and config.untrained_teacher:
        raise UserError(
            f"--teacher_stage={config.teacher_stage} trains the teacher first, "
            "--untrained_teacher requires an untrained one: drop one of them."
        )
    if config.init_stage and not config.pair_flagfile:
        raise UserError(
            f"--init_stage={config.init_stage} needs --pair_flagfile, which is empty: "
            "name the flagfile of student and teacher."
        )
    if config.init_stage and config.init_flagfile:
        raise UserError(
            f"--init_stage={config.init_stage} and "
            f"--init_flagfile={config.init_flagfile} both initialise the student: drop "
            "one of them."
        )


def _check_init(config):
    if config.init_weights and config.has_init:
        name = "init_stage" if config.init_stage else "init_flagfile"
        raise UserError(
            f"--init_weights={config.init_weights} and "
            f"--{name}={getattr(config, name)} both initialise the student: drop one "
            "of them."
        )


def _check_cache(config):
    if config.cache_top_k and not config.teacher_cache:
        raise UserError("--cache_top_k needs --teacher_cache, which is empty.")
    if config.teacher_cache and config.untrained_teacher:
        raise UserError(
            "--teacher_cache stores a trained teacher's outputs, --untrained_teacher "
            "has none: drop one of them."
        )


def _check_phases(config):
    if config.phase_epochs and config.phases != "progressive":
        raise UserError(
            f"--phase_epochs={','.join(map(str, config.phase_epochs))} needs "
            f"--phases=progressive, got --phases={config.phases}."
        )
    needed = {"phases": "progressive", "lr_schedule": "cosine"}
    for name, value in needed.items():
        if config.phase_lr == "restart" and getattr(config, name) != value:
            raise UserError(
                f"--phase_lr=restart needs --{name}={value}, got "
                f"--{name}={getattr(config, name)}."
            )
