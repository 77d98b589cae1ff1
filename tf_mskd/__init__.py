"""Multiple-stage knowledge distillation for Keras.

The public names are imported when they are first used, so that a command can look at
its flags before TensorFlow starts.
"""

import importlib
import typing

from tf_mskd.utils.version import VERSION as __version__

if typing.TYPE_CHECKING:
    from tf_mskd import callbacks as callbacks
    from tf_mskd.deployment.export import export_student as export_student
    from tf_mskd.methods.ce import CE as CE
    from tf_mskd.methods.kd import KD as KD
    from tf_mskd.methods.mskd import MSKD as MSKD
    from tf_mskd.methods.oto import OtO as OtO
    from tf_mskd.models.attach import add_exits as add_exits
    from tf_mskd.models.costs import exit_costs as exit_costs
    from tf_mskd.models.create import available_models as available_models
    from tf_mskd.models.create import create_model as create_model
    from tf_mskd.models.macs import count_macs as count_macs
    from tf_mskd.models.saving import load_model as load_model
    from tf_mskd.models.saving import save_model as save_model
    from tf_mskd.tasks.classification import accuracies as accuracies
    from tf_mskd.tasks.ensemble import ensemble_scores as ensemble_scores
    from tf_mskd.tasks.ensemble import fit_weights as fit_weights
    from tf_mskd.training.distiller import Distiller as Distiller
    from tf_mskd.training.grad_cam import grad_cam as grad_cam
    from tf_mskd.training.optimizers import SGD as SGD
    from tf_mskd.utils.errors import UserError as UserError

_HOME = {  # public name -> module that defines it
    "CE": "methods.ce",
    "KD": "methods.kd",
    "MSKD": "methods.mskd",
    "SGD": "training.optimizers",
    "Distiller": "training.distiller",
    "OtO": "methods.oto",
    "UserError": "utils.errors",
    "accuracies": "tasks.classification",
    "add_exits": "models.attach",
    "available_models": "models.create",
    "callbacks": "",
    "count_macs": "models.macs",
    "create_model": "models.create",
    "exit_costs": "models.costs",
    "ensemble_scores": "tasks.ensemble",
    "export_student": "deployment.export",
    "fit_weights": "tasks.ensemble",
    "grad_cam": "training.grad_cam",
    "load_model": "models.saving",
    "save_model": "models.saving",
}
_FORMER = {"vote": "ensemble_scores"}  # former name -> name
__all__ = [*_HOME, "__version__"]


def __getattr__(name):
    name = _FORMER.get(name, name)
    if name not in _HOME:
        raise AttributeError(f"module 'tf_mskd' has no attribute {name!r}")
    home = _HOME[name]
    if not home:  # a package of public names
        return importlib.import_module(f"tf_mskd.{name}")
    value = getattr(importlib.import_module(f"tf_mskd.{home}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
