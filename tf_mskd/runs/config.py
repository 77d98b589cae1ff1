"""Every setting of a run, once: name, type, default, bounds and help.

`flags.py` makes the absl flags from these fields; `Config` checks what one flag alone
cannot show. Settings marked `free` may change between two starts of the same run.
"""

import dataclasses

from tf_mskd.models.ensemble import KINDS
from tf_mskd.training.schedules import LEARNING_RATES
from tf_mskd.training.strategies import STRATEGIES
from tf_mskd.utils.errors import UserError

CACHE_VIEWS = 8  # of --teacher_cache, if --cached_augmentations does not say

HEADS = ("dense", "separable", "bottleneck", "stage", "linear")
POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")


def _setting(group, default, text, *, low=None, high=None, choices=None, free=False):
    metadata = {
        "group": group,
        "help": text,
        "low": low,
        "high": high,
        "choices": choices,
        "free": free,
    }
    return dataclasses.field(default=default, metadata=metadata)


def _group(name):
    return lambda *args, **kwargs: _setting(name, *args, **kwargs)


GROUPS = ("run", "data", "model", "method", "teacher", "training")
_run, _data, _model, _method, _teacher, _training = map(_group, GROUPS)


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of one run; see `--help` of `tf_mskd.train` for each of them."""

    run_dir: str = _run("", "Folder of the run; required.", free=True)
    seed: int = _run(0, "Seed of weights, order and augmentation.", low=0)
    strategy: str = _run(
        "auto",
        "Devices: all GPUs or else the CPU (auto), the first one, all (mirrored), or "
        "those of all machines in TF_CONFIG (multi_worker).",
        choices=STRATEGIES,
        free=True,
    )
    num_devices: int = _run(0, "Devices to use; 0 takes all.", low=0, free=True)
    dtype_policy: str = _run("float32", "Keras dtype policy.", choices=POLICIES)
    deterministic: bool = _run(True, "Use TensorFlow's deterministic operations.")
    steps_per_call: int = _run(
        20, "Training steps per compiled call, at most.", low=1, free=True
    )
    checkpoint_minutes: float = _run(
        10.0, "Write the state this often within an epoch; 0: never.", low=0, free=True
    )
    checkpoint_steps: int = _run(
        0,
        "Write the state after so many steps within an epoch; 0: never.",
        low=0,
        free=True,
    )
    tensorboard: bool = _run(
        True, "Write TensorBoard logs to the run folder.", free=True
    )

    dataset: str = _data(
        "digits", "digits, tiny_imagenet, folder, or a TFDS name such as cifar100."
    )
    data_dir: str = _data(
        "", "Folder of the prepared data; empty: TFDS' own default.", free=True
    )
    image_size: int = _data(0, "Side to resize to, in pixels; 0 keeps it.", low=0)
    augment: str = _data(
        "crop,flip",
        "In this order: crop, flip, rotate, autoaugment, jda, cutout; or none.",
    )
    second_augment: str = _data(
        "",
        "Augmentation of the second view, for methods that compare two; empty: as the "
        "first.",
    )
    crop_padding: int = _data(4, "Zero padding before the crop, in pixels.", low=0)
    rotation_degrees: float = _data(
        20.0, "Largest rotation either way, in degrees.", low=0, high=180
    )
    cutout_size: int = _data(16, "Side of the cut-out square, in pixels.", low=1)
    train_fraction: float = _data(
        1.0, "Share of the training images in use, by class.", low=0, high=1
    )
    validation_fraction: float = _data(
        0.0, "Share of the training images held out, by class.", low=0, high=1
    )
    batch_size: int = _data(64, "Images per step, over all devices.", low=1)
    eval_batch_size: int = _data(
        256, "Images per step of an evaluation.", low=1, free=True
    )

    model: str = _model("resnet10", "Network, such as resnet18, vgg8 or wrn_16_2.")
    exits: str = _model("all", "Exits to build: all, last, or numbers such as 1,2,4.")
    exit_head: str = _model("dense", "Kind of the exits' heads.", choices=HEADS)
    attention: bool = _model(False, "Attention mask before the heads of early exits.")
    width: float = _model(1.0, "Multiplier of all channel counts.", low=0)
    dropout: float = _model(0.0, "Dropout rate.", low=0, high=1)
    vgg_taps: str = _model("1,2,3,5", "Blocks of a VGG after which its exits sit.")

    method: str = _method(
        "ce", "Method, such as ce, kd, mskd or oto, or several: kd,at; docs/methods.md."
    )
    method_args: str = _method(
        "", "Arguments of the method, such as preset=hsakd or kd.temperature=3."
    )
    term_weights: str = _method("", "Weights of loss terms, such as ce:0.1,kd:0.9.")
    exit_weights: str = _method("", "Weights of exits, such as exit_1:0.5,exit_4:1.")
    exit_map: str = _method("", "OtO pairs student:teacher, such as 1:2,2:3.")
    phases: str = _method(
        "joint",
        "Exits at once, one more each phase, or each stage on its own.",
        choices=("joint", "progressive", "detached"),
    )
    phase_epochs: str = _method("", "Epochs of each phase, such as 10,10,10,30.")
    ensemble: str = _method("logits", "What the exits average to vote.", choices=KINDS)

    teacher: str = _teacher("", "Trained teacher: a .keras file or a run folder.")
    teacher_flagfile: str = _teacher(
        "", "Flagfile of the teacher's own run, done first."
    )
    teacher_run_dir: str = _teacher(
        "", "Its run folder; empty: beside run_dir, named as the file.", free=True
    )
    init_flagfile: str = _teacher(
        "", "Flagfile of a run, done first, whose weights this network starts from."
    )
    init_run_dir: str = _teacher(
        "", "Its run folder; empty: beside run_dir, named as the file.", free=True
    )
    untrained_teacher: bool = _teacher(
        False, "Take the network of teacher_flagfile untrained: a peer that learns too."
    )
    freeze: str = _teacher(
        "none",
        "What stays fixed: nothing, or all layers that init_flagfile gave (backbone).",
        choices=("none", "backbone"),
    )

    teacher_cache: str = _teacher(
        "",
        "Folder that keeps what the teacher says of every view of every image: it runs "
        "once, for all epochs, students and seeds; empty: it runs in every step.",
    )
    cached_augmentations: int = _teacher(
        0,
        "Different augmentations of each image; epoch e sees number e modulo this. 0: "
        "8 with --teacher_cache, else a new one each epoch.",
        low=0,
    )
    cache_top_k: int = _teacher(
        0, "Keep the k largest logits alone, to save disk space; 0: all.", low=0
    )
    view_seed: int = _teacher(
        -1,
        "Seed of the augmentation; -1: as --seed, or 0 with --teacher_cache, so that "
        "runs of all seeds share it.",
        low=-1,
    )

    epochs: int = _training(240, "Length of the run.", low=1)
    lr: float = _training(0.05, "Learning rate at the start.", low=0)
    lr_schedule: str = _training("step", "Course of the rate.", choices=LEARNING_RATES)
    lr_drops: str = _training("", "Epochs after which it falls, such as 150,180,210.")
    lr_decay: float = _training(0.1, "Factor of each fall.", low=0, high=1)
    warmup_epochs: float = _training(0.0, "Linear rise before a cosine.", low=0)
    momentum: float = _training(0.9, "Momentum of SGD.", low=0, high=1)
    nesterov: bool = _training(False, "Nesterov's form of the momentum.")
    l2: float = _training(5e-4, "L2 inside the gradient, for every variable.", low=0)

    @property
    def views(self):
        """Number of different augmentations of each image; 0: one an epoch."""
        return self.cached_augmentations or (CACHE_VIEWS if self.teacher_cache else 0)

    @property
    def augment_seed(self):
        """The seed of the augmentation."""
        if self.view_seed >= 0:
            return self.view_seed
        return 0 if self.teacher_cache else self.seed

    def __post_init__(self):
        """Checks what one flag alone cannot show."""
        for field in dataclasses.fields(self):
            _check_bounds(field, getattr(self, field.name))
        numbers("lr_drops", self.lr_drops)
        numbers("phase_epochs", self.phase_epochs)
        numbers("vgg_taps", self.vgg_taps)
        if self.exits not in ("all", "last"):
            numbers("exits", self.exits)
        pairs("term_weights", self.term_weights)
        pairs("exit_weights", self.exit_weights)
        if self.teacher and self.teacher_flagfile:
            raise UserError("Give --teacher or --teacher_flagfile, not both.")
        if self.untrained_teacher and not self.teacher_flagfile:
            raise UserError(
                "--untrained_teacher needs --teacher_flagfile, which is empty."
            )
        if self.cache_top_k and not self.teacher_cache:
            raise UserError("--cache_top_k needs --teacher_cache, which is empty.")
        if self.teacher_cache and self.untrained_teacher:
            raise UserError(
                "--teacher_cache stores a trained teacher's outputs, "
                "--untrained_teacher asks for an untrained one: drop one of them."
            )
        if self.phase_epochs and self.phases != "progressive":
            raise UserError(
                f"--phase_epochs={self.phase_epochs} needs --phases=progressive, got "
                f"--phases={self.phases}."
            )
        if self.freeze == "backbone" and not self.init_flagfile:
            raise UserError("--freeze=backbone needs --init_flagfile, which is empty.")


def _check_bounds(field, value):
    low, high = field.metadata["low"], field.metadata["high"]
    choices = field.metadata["choices"]
    if choices and value not in choices:
        raise UserError(
            f"--{field.name} must be one of {', '.join(choices)}, got {value!r}."
        )
    above = low is None or value >= low  # false for "not a number" too
    if not (above and (high is None or value <= high)):
        raise UserError(
            f"--{field.name} must be in [{low}, {'inf' if high is None else high}], "
            f"got {value}."
        )


def numbers(name, text):
    """Reads "1,2,3" into a tuple of int; empty text gives ().

    Example:
        >>> numbers("exits", "1,2,4")
        (1, 2, 4)
    """
    try:
        return tuple(int(part) for part in text.split(",") if text)
    except ValueError:
        raise UserError(
            f"--{name} must be numbers such as 1,2,3, got {text!r}."
        ) from None


def pairs(name, text):
    """Reads "ce:0.1,kd:0.9" into a dict, str -> float; empty text gives {}.

    Example:
        >>> pairs("term_weights", "ce:0.1,kd:0.9")
        {'ce': 0.1, 'kd': 0.9}
    """
    try:
        split = (part.split(":") for part in text.split(",") if text)
        return {key.strip(): float(value) for key, value in split}
    except ValueError:
        raise UserError(
            f"--{name} must be pairs such as ce:0.1,kd:0.9, got {text!r}."
        ) from None


def arguments(text, defaults, what):
    """Reads "preset=hsakd,temperature=3" into a dict typed by the defaults.

    Args:
        text: str, name=value pairs separated by commas; a value may hold a comma if
            no "name=" follows it ("exit_map=1:2,2:3").
        defaults: dict, known name -> default value; None takes a float.
        what: str, for the error.

    Example:
        >>> arguments("temperature=3", {"temperature": 4.0}, "kd")
        {'temperature': 3.0}
    """
    parts = []
    for part in text.split(",") if text else ():
        if "=" in part or not parts:
            parts.append(part)
        else:
            parts[-1] += "," + part
    values = {}
    for part in parts:
        name, found, value = part.partition("=")
        if not found:
            raise UserError(f"--{what} must be name=value pairs, got {text!r}.")
        default = defaults.get(name.strip(), "")
        values[name.strip()] = _typed(name, value, default, what)
    return values


def _typed(name, value, default, what):
    kind = float if default is None else type(default)
    if kind is bool:
        kind = {"true": True, "false": False}.__getitem__
        value = value.lower()
    try:
        return kind(value)
    except (ValueError, KeyError):
        raise UserError(
            f"--{what}: {name} takes a value like {default!r}, got {value!r}."
        ) from None


def differing(old, new):
    """Lists the fixed settings in which two configurations differ, as readable text."""
    return [
        f"--{f.name} (was {getattr(old, f.name)!r}, now {getattr(new, f.name)!r})"
        for f in dataclasses.fields(Config)
        if not f.metadata["free"] and getattr(old, f.name) != getattr(new, f.name)
    ]
