"""Which settings go with which --optimizer, and their defaults; without TensorFlow."""

import typing

from tf_mskd.utils.errors import UserError

RATES = {"sgd": 0.05, "adamw": 1e-3, "adam": 1e-3, "lion": 1e-4, "muon": 1e-3}
# the product of rate and decay is that of adamw: Lion's steps are larger at one rate
DECAYS = {"adamw": 0.05, "lion": 0.5, "muon": 0.05}
SGD_ONLY = ("l2", "momentum", "nesterov")


def check_optimizer(config: typing.Any, changed: typing.Collection[str]) -> None:
    """Raises `UserError` for settings that the optimizer does not read.

    Args:
        config: `Config`.
        changed: names of the settings that are not at their defaults.
    """
    kind = config.optimizer
    for name in SGD_ONLY:
        if kind != "sgd" and name in changed:
            decays = name == "l2" and kind in DECAYS
            instead = ", and set --weight_decay" if decays else ""
            raise UserError(
                f"--{name}={getattr(config, name)} is for --optimizer=sgd, got "
                f"--optimizer={kind}: leave it at its default{instead}."
            )
    if "weight_decay" in changed and kind not in DECAYS:
        instead = "set --l2" if kind == "sgd" else "take --optimizer=adamw"
        raise UserError(
            f"--weight_decay={config.weight_decay} is for --optimizer="
            f"{', '.join(DECAYS)}, got {kind}: {instead}."
        )
    if -1 < config.weight_decay < 0:
        raise UserError(
            f"--weight_decay must be 0 or more, or -1 for the optimizer's default, got "
            f"{config.weight_decay}."
        )
    for name in ("ema", "label_smoothing"):
        if getattr(config, name) == 1:
            raise UserError(f"--{name} must be below 1, got 1.0. 0 turns it off.")


def check_training(
    config: typing.Any,
    *,
    steps: int,
    several_devices: bool,
    one_class: bool,
    reads_labels: bool,
) -> None:
    """Raises `UserError` for settings that a run would not follow.

    Args:
        config: `Config`.
        steps: int, length of the run.
        several_devices: bool, whether each sees but a part of a batch.
        one_class: bool, whether an image has one of several classes.
        reads_labels: bool, whether the term "ce" counts.
    """
    for name, unset in (("clip_norm", 0), ("accumulate_steps", 1)):
        value = getattr(config, name)
        if several_devices and value != unset:
            raise UserError(
                f"--{name}={value} works on one device, as each clips and adds up its "
                "own gradients; this run has several: set --num_devices=1."
            )
    if config.accumulate_steps > steps:
        raise UserError(
            f"--accumulate_steps={config.accumulate_steps} must be at most the steps "
            f"of the run, {steps}: no update would be made."
        )
    if config.label_smoothing and not one_class:
        raise UserError(
            f"--label_smoothing={config.label_smoothing} shares a label among classes, "
            f"the task {config.task!r} has labels of another kind: set it to 0."
        )
    if config.label_smoothing and not reads_labels:
        raise UserError(
            f"--label_smoothing={config.label_smoothing} changes the term ce, which "
            f"--method={config.method} lacks or weighs 0: set it to 0."
        )
