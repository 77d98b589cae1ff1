"""The mixed batches of a run, and which runs can have none."""

from tf_mskd.data.mixing import Mixing
from tf_mskd.methods.common.method import Method
from tf_mskd.runs.config import Config
from tf_mskd.runs.task import build_task
from tf_mskd.utils.errors import UserError


def build_mixing(
    config: Config, method: Method | None, num_classes: int
) -> Mixing | None:
    """Creates what `--mixup` and `--cutmix` ask for, None without both.

    Args:
        config: `Config`.
        method: `Method` of the run, or None if it is not known.
        num_classes: int, of the data set.

    Raises:
        UserError: if the task or the method cannot learn from mixed images.
    """
    if not (config.mixup or config.cutmix):
        return None
    name = "mixup" if config.mixup else "cutmix"
    flag = f"--{name}={getattr(config, name):g}"
    if not build_task(config).one_class:
        raise UserError(
            f"{flag} mixes classes, the task {config.task!r} has labels of another "
            f"kind: set --{name}=0."
        )
    if method is not None:
        _check_method(name, flag, config.method, method)
    return Mixing(config.mixup, config.cutmix, num_classes=num_classes)


def _check_method(name, flag, method_name, method):
    further = [key for key in method.target_keys if key != "label"]
    if method.label_use == "class":
        reason = f"makes soft labels, --method={method_name} needs class numbers"
    elif method.changes_batch:
        reason = f"mixes images, --method={method_name} changes them itself"
    elif further:
        reason = (
            f"mixes images, --method={method_name} reads {further[0]} of each alone"
        )
    else:
        return
    raise UserError(
        f"{flag} {reason}: set --{name}=0, or take another method, such as mskd."
    )
