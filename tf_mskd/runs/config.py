"""Every setting of a run, once: name, type, default, bounds and help.

`flags.py` makes the absl flags from these fields; `Config` checks what one flag alone
cannot show. Settings marked `free` may change when a run is resumed.
"""

import dataclasses
import functools
import os

from tf_mskd.runs import optimizer_settings, own_model, parsers
from tf_mskd.runs.data_settings import check_data
from tf_mskd.runs.network_settings import check_networks
from tf_mskd.runs.settings import check_bounds, read_setting, setting, text_of
from tf_mskd.utils import choices as names

CACHED_AUGMENTATIONS = 8  # of --teacher_cache, unless --cached_augmentations is set


def _group(name):
    return lambda *args, **kwargs: setting(name, *args, **kwargs)


GROUPS = ("run", "data", "model", "method", "teacher", "training")
_run, _data, _model, _method, _teacher, _training = map(_group, GROUPS)


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of one run; see `--help` of `tf_mskd.train` for each of them.

    Settings of several values are tuples or dicts. The text of any setting, as in a
    flag, is read: `Config(nesterov="false")` is `Config(nesterov=False)`.

    Raises:
        UserError: for a value out of range, or values that do not fit together.

    Example:
        >>> config = Config(exits="1,2", term_weights={"ce": 1})
        >>> config.exits, config.term_weights
        ((1, 2), {'ce': 1.0})
    """

    run_dir: str = _run("", "Folder of the run; required.", free=True)
    seed: int = _run(0, "Seed of weights, order and augmentation.", low=0)
    strategy: str = _run(
        "auto",
        "Devices: all GPUs or else the CPU (auto), the first one, all (mirrored), or "
        "those of all machines in TF_CONFIG (multi_worker).",
        choices=names.STRATEGIES,
        free=True,
    )
    num_devices: int = _run(0, "Devices to use; 0 takes all.", low=0, free=True)
    dtype_policy: str = _run(
        "float32", "Keras dtype policy.", choices=names.DTYPE_POLICIES
    )
    deterministic: bool = _run(True, "Use TensorFlow's deterministic operations.")
    steps_per_call: int = _run(
        20, "Training steps per compiled call, at most.", low=1, free=True
    )
    checkpoint_minutes: float = _run(
        10.0, "Minutes between checkpoints within an epoch; 0: none.", low=0, free=True
    )
    checkpoint_steps: int = _run(
        0,
        "Steps between checkpoints within an epoch; 0: none.",
        low=0,
        free=True,
    )
    tensorboard: bool = _run(
        True, "Write TensorBoard logs to the run folder.", free=True
    )
    profile_steps: tuple[int, ...] = _run(
        "",
        "Steps of the run, first and last, such as 101,120, to profile for "
        "TensorBoard; empty: none.",
        form=parsers.STEPS,
        free=True,
    )

    dataset: str = _data(
        "digits",
        "digits, nuclei, low_light, tiny_imagenet, folder, pairs, pascal_voc, "
        "cityscapes, or a TFDS name such as cifar100.",
    )
    data_dir: str = _data(
        "", "Folder of the prepared data; empty: TFDS' own default.", free=True
    )
    image_size: int = _data(0, "Side to resize to, in pixels; 0 keeps it.", low=0)
    resize: str = _data(
        "crop",
        "Images of another size: resize the short side and cut out the centre (crop), "
        "or resize both sides (squeeze).",
        choices=names.RESIZES,
    )
    centre_crop: float = _data(
        1.0,
        "Part of each side of an image that is kept around its centre before it is "
        "resized; 0.875 is usual with source_crop.",
        low=0,
        high=1,
    )
    memory: str = _data(
        "auto",
        "Read all images into memory (decoded), or decode those of a folder or TFDS "
        "set when they are used (stream); auto: decoded if that takes up to 60 % of "
        "what is free.",
        choices=names.MEMORIES,
        free=True,  # the pixels are the same
    )
    bad_images: str = _data(
        "stop",
        "Files of a folder or TFDS set that hold no image: an error (stop), or another "
        "image of the class takes their place (skip).",
        choices=names.BAD_IMAGES,
    )
    patch_size: int = _data(
        0,
        "Side of the patches that the images of a folder are cut into, in pixels; 0: "
        "whole images.",
        low=0,
    )
    test_fraction: float = _data(
        0.0,
        "Fraction of each class to test with, in a folder without a test split.",
        low=0,
        high=1,
    )
    augment: tuple[str, ...] = _data(
        "crop,flip",
        "Augmentations in order, of crop, flip, rotate, autoaugment, jda, randaugment, "
        "trivialaugment, cutout, erase, resized_crop, source_crop, jitter, grey, blur; "
        "or none.",
        form=parsers.AUGMENTATION,
    )
    second_augment: tuple[str, ...] = _data(
        "",
        "Augmentations of the second view, for methods that compare two; empty: as the "
        "first.",
        form=parsers.AUGMENTATION,
    )
    crop_padding: int = _data(4, "Zero padding before the crop, in pixels.", low=0)
    rotation_degrees: float = _data(
        20.0, "Largest rotation either way, in degrees.", low=0, high=180
    )
    cutout_size: int = _data(16, "Side of the cut-out square, in pixels.", low=1)
    crop_scale: tuple[float, ...] = _data(
        "0.5,1",
        "Area of the windows of resized_crop and source_crop, as a part of the image: "
        "bounds, such as 0.08,1 for ImageNet.",
        form=parsers.BOUNDS,
    )
    crop_ratio: tuple[float, ...] = _data(
        "0.75,1.3333333333333333",
        "Width by height of the windows of resized_crop and source_crop: bounds.",
        form=parsers.BOUNDS,
    )
    randaugment_operations: int = _data(
        2, "Operations of randaugment, one after another.", low=1, high=8
    )
    randaugment_magnitude: float = _data(
        9.0, "Magnitude of the operations of randaugment.", low=0, high=10
    )
    erase_fill: str = _data(
        "noise",
        "What erase puts in place: random values (noise) or zeros (black).",
        choices=names.ERASE_FILLS,
    )
    augment_fraction: float = _data(
        1.0,
        "Fraction of the views that have the strong part of their augmentation: all "
        "but crop and flip.",
        low=0,
        high=1,
    )
    mixup: float = _data(
        0.0,
        "Alpha of mixup, such as 0.2: each image is blended with another of its batch, "
        "and their labels alike; 0: none.",
        low=0,
    )
    cutmix: float = _data(
        0.0,
        "Alpha of cutmix, such as 1: a box of each image comes from another of its "
        "batch; 0: none. With --mixup each step does one of the two.",
        low=0,
    )
    repeats: int = _data(
        1,
        "Views of an image in each epoch, side by side; an epoch has as many steps, "
        "and so but a part of the images.",
        low=1,
    )
    train_fraction: float = _data(
        1.0, "Fraction of each class's training images in use.", low=0, high=1
    )
    validation_fraction: float = _data(
        0.0, "Fraction of each class's training images held out.", low=0, high=1
    )
    batch_size: int = _data(64, "Images per step, over all devices.", low=1)
    eval_batch_size: int = _data(
        256, "Images per step of an evaluation, over all devices.", low=1, free=True
    )

    model: str = _model(
        "resnet10",
        "Network, such as resnet18, vgg8 or wrn_16_2; or your own: keras:MobileNetV2"
        "?alpha=0.35, a .keras file or package.module:function; docs/models.md.",
    )
    exits: str | tuple[int, ...] = _model(
        "all",
        "Exits to build: all, last, or numbers such as 1,2,4.",
        form=parsers.EXITS,
    )
    taps: tuple[str, ...] = _model(
        "",
        "Layers of your own network after which its exits branch off, such as "
        "block_5_add,block_12_add; empty: one exit, its end.",
        form=parsers.LAYERS,
    )
    exit_head: str = _model(
        "dense",
        "Kind of the exits' heads; auto, with --taps: the strongest that pays.",
        choices=(*names.EXIT_HEADS, "auto"),
    )
    attention: bool = _model(False, "Attention mask before the heads of early exits.")
    pyramid_pooling: bool = _model(
        False, "Pyramid pooling before the last exit, for tasks whose exits are maps."
    )
    stem: str = _model(
        "small",
        "Stem of ResNets and MobileNets: for images of 32 or 64 pixels a side (small), "
        "or that of networks for ImageNet.",
        choices=names.STEMS,
    )
    width: float = _model(1.0, "Multiplier of all channel counts.", low=0)
    dropout: float = _model(0.0, "Dropout rate.", low=0, high=1)
    vgg_taps: tuple[int, ...] = _model(
        "1,2,3,5",
        "Blocks of a VGG after which its exits branch off.",
        form=parsers.NUMBERS,
    )

    task: str = _method("classification", "What the exits answer.", choices=names.TASKS)
    task_args: dict[str, str] = _method(
        "", "Arguments of the task, such as bits=32.", form=parsers.ARGUMENTS
    )
    method: str = _method(
        "ce", "Method, such as ce, kd, mskd or oto, or several: kd,at; docs/methods.md."
    )
    method_args: dict[str, str] = _method(
        "",
        "Arguments of the method, such as preset=hsakd or kd.temperature=3.",
        form=parsers.ARGUMENTS,
    )
    term_weights: dict[str, float] = _method(
        "", "Weights of loss terms, such as ce:0.1,kd:0.9.", form=parsers.WEIGHTS
    )
    exit_weights: dict[str, float] = _method(
        "", "Weights of exits, such as exit_1:0.5,exit_4:1.", form=parsers.WEIGHTS
    )
    exit_map: dict[int, int] = _method(
        "", "OtO pairs student:teacher, such as 1:2,2:3.", form=parsers.EXIT_MAP
    )
    phases: str = _method(
        "joint",
        "Train all exits together (joint), one more exit each phase (progressive), or "
        "each stage on its own (detached).",
        choices=names.PHASES,
    )
    phase_epochs: tuple[int, ...] = _method(
        "", "Epochs of each phase, such as 10,10,10,30.", form=parsers.NUMBERS
    )
    phase_lr: str = _method(
        "shared",
        "Learning rate of progressive training: one schedule over all phases (shared), "
        "or one that starts anew with each phase (restart).",
        choices=names.PHASE_RATES,
    )
    ensemble: str = _method(
        "logits",
        "Averaged over exits in the ensemble: logits or probabilities.",
        choices=names.ENSEMBLES,
    )

    teacher: str = _teacher(
        "",
        "Trained teacher: a run folder, a .keras file, package.module:function, "
        "keras:ResNet50?weights=PATH or, with weights of PyTorch, "
        "resnet34?stem=imagenet&weights=PATH.",
    )
    teacher_flagfile: str = _teacher(
        "", "Flagfile of the teacher's own run, which is done first."
    )
    teacher_run_dir: str = _teacher(
        "", "Its run folder; empty: beside run_dir, named as the flagfile.", free=True
    )
    teacher_stage: str = _teacher(
        "",
        "Run that prepares the network of teacher_flagfile to teach, such as exits or "
        "paraphraser: a flagfile of configs/stages.",
    )
    init_flagfile: str = _teacher(
        "", "Flagfile of a run, done first, whose weights initialise this network."
    )
    init_run_dir: str = _teacher(
        "", "Its run folder; empty: beside run_dir, named as the flagfile.", free=True
    )
    init_stage: str = _teacher(
        "",
        "Run of pair_flagfile whose weights initialise this network, such as ab: a "
        "flagfile of configs/stages.",
    )
    init_weights: str = _teacher(
        "",
        "File of PyTorch weights, .pth or .safetensors, that initialises this network "
        "of the library, such as resnet18-f37072fd.pth; docs/models.md.",
    )
    pair_flagfile: str = _teacher(
        "",
        "Flagfile of student and teacher without a method, for init_stage.",
        free=True,
    )
    stage_dir: str = _teacher(
        "",
        "Folder of flagfiles that replace those of configs/stages.",
        free=True,
    )
    untrained_teacher: bool = _teacher(
        False, "Use the network of teacher_flagfile untrained: a peer that learns too."
    )
    teacher_size: int = _teacher(
        0,
        "Side in pixels to which the images are resized for the teacher, if it was "
        "trained on others than the student's; 0: they are not.",
        low=0,
    )
    freeze: str = _teacher(
        "none",
        "Layers to freeze: none, or all with weights from init_flagfile, init_weights "
        "or a --model of your own (backbone).",
        choices=names.FROZEN,
    )

    teacher_cache: str = _teacher(
        "",
        "Folder that stores the teacher's outputs, so that it runs once per image and "
        "view; empty: it runs in every step.",
    )
    cached_augmentations: int = _teacher(
        0,
        "Different augmentations of each image; epoch e sees number e modulo this. 0: "
        "8 with --teacher_cache, else a new one each epoch.",
        low=0,
    )
    cache_top_k: int = _teacher(
        0, "Store only the k largest logits, to save disk space; 0: all.", low=0
    )
    view_seed: int = _teacher(
        -1,
        "Seed of the augmentation; -1: as --seed, or 0 with --teacher_cache, so that "
        "runs of all seeds share it.",
        low=-1,
    )

    epochs: int = _training(240, "Epochs to train.", low=1)
    optimizer: str = _training(
        "sgd",
        "sgd, as the published codes run it; or Keras' adamw, adam, lion or muon "
        "(matrices of dense layers; the rest by AdamW).",
        choices=names.OPTIMIZERS,
    )
    lr: float = _training(
        0.0,
        "Learning rate at the start; 0: 0.05 with sgd, 0.001 with adamw, adam and "
        "muon, 0.0001 with lion.",
        low=0,
    )
    lr_schedule: str = _training(
        "step", "Learning-rate schedule.", choices=names.LEARNING_RATES
    )
    lr_drops: tuple[int, ...] = _training(
        "",
        "Epochs after which the rate drops, such as 150,180,210.",
        form=parsers.NUMBERS,
    )
    lr_decay: float = _training(0.1, "Decay factor at each drop.", low=0, high=1)
    warmup_epochs: float = _training(
        0.0, "Linear warm-up before the cosine, in epochs.", low=0
    )
    momentum: float = _training(0.9, "Momentum of sgd.", low=0, high=1)
    nesterov: bool = _training(False, "Use Nesterov momentum, with sgd.")
    l2: float = _training(
        5e-4, "L2 penalty of sgd, added to the gradient of every variable.", low=0
    )
    weight_decay: float = _training(
        -1.0,
        "Decoupled weight decay of all but vectors, such as biases and scales of "
        "norms; -1: 0.05 of adamw and muon, 0.5 of lion. Not with sgd and adam.",
        low=-1,
    )
    ema: float = _training(
        0.0,
        "Decay per step of a moving average of the weights, such as 0.999, which is "
        "validated and kept; 0: none.",
        low=0,
        high=1,
    )
    clip_norm: float = _training(
        0.0, "Largest norm of the gradient of all variables; 0: any.", low=0
    )
    accumulate_steps: int = _training(
        1, "Steps whose gradients are averaged for one update.", low=1
    )
    label_smoothing: float = _training(
        0.0,
        "Part of each label that all classes share, in the label loss of every exit.",
        low=0,
        high=1,
    )

    @property
    def cuts_files(self) -> bool:
        """Whether the augmentation reads windows of image files."""
        return "source_crop" in self.augment

    @property
    def skip_bad(self) -> bool:
        """Whether another image takes the place of one that cannot be decoded."""
        return self.bad_images == "skip"

    @property
    def views(self) -> int:
        """Number of different augmentations of each image; 0: one an epoch."""
        usual = CACHED_AUGMENTATIONS if self.teacher_cache else 0
        return self.cached_augmentations or usual

    @property
    def augment_seed(self) -> int:
        """The seed of the augmentation."""
        if self.view_seed >= 0:
            return self.view_seed
        return 0 if self.teacher_cache else self.seed

    @property
    def learning_rate(self) -> float:
        """The learning rate at the start."""
        return self.lr or optimizer_settings.RATES[self.optimizer]

    @property
    def decoupled_decay(self) -> float:
        """The decoupled weight decay, 0 where the optimizer has none."""
        usual = optimizer_settings.DECAYS.get(self.optimizer, 0.0)
        return usual if self.weight_decay == -1 else self.weight_decay

    @property
    def has_init(self) -> bool:
        """Whether another run, done first, gives this network its first weights."""
        return bool(self.init_flagfile or self.init_stage)

    def __post_init__(self):
        """Checks what one flag alone cannot show."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            text = value if isinstance(value, str) else text_of(field, value)
            value = read_setting(field, text)
            # the class is frozen: this is how its own constructor sets a field
            object.__setattr__(self, field.name, value)
            check_bounds(field, value)
        set_here = changed(self)
        own_model.check_settings(self, set_here)
        optimizer_settings.check_optimizer(self, set_here)
        check_networks(self)
        check_data(self, set_here)


def changed(config: Config) -> list[str]:
    """Lists the settings that are not at their defaults.

    Example:
        >>> changed(Config(width=0.5, exits="all"))
        ['width']
    """
    return [n for n, value in _defaults().items() if getattr(config, n) != value]


@functools.cache
def _defaults():
    values = {}
    for field in dataclasses.fields(Config):
        text = field.default
        text = text if isinstance(text, str) else text_of(field, text)
        values[field.name] = read_setting(field, text)
    return values


def differing(old: Config, new: Config) -> list[str]:
    """Lists the fixed settings in which two configurations differ, as readable text."""
    return [
        f"--{f.name} (was {_shown(f, old)}, now {_shown(f, new)})"
        for f in dataclasses.fields(Config)
        if not f.metadata["free"]
        and not _equal(f.name, _in_force(f.name, old), _in_force(f.name, new))
    ]


def _in_force(name, config):
    """The value of a setting, or what holds where it is left to another setting."""
    if name == "view_seed" and config.teacher_cache:
        return config.augment_seed
    left = {
        "lr": "learning_rate",
        "weight_decay": "decoupled_decay",
        "cached_augmentations": "views",
    }
    return getattr(config, left.get(name, name))


def _equal(name, old, new):
    if old != new and name.endswith("_flagfile") and old and new:
        # the same file has another path when its run is resumed from another folder
        known = os.path.exists(old) and os.path.exists(new)
        return known and os.path.samefile(old, new)
    return old == new


def _shown(field, config):
    value = getattr(config, field.name)
    return repr(text_of(field, value) if field.metadata["language"] else value)
