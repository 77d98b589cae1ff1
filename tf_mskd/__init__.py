"""Multiple-stage knowledge distillation for Keras."""

__version__ = "0.1.0"

from tf_mskd import callbacks
from tf_mskd.deployment import export_student
from tf_mskd.distiller import Distiller
from tf_mskd.ensemble import accuracies, fit_weights, vote
from tf_mskd.errors import UserError
from tf_mskd.methods.ce import CE
from tf_mskd.methods.kd import KD
from tf_mskd.methods.mskd import MSKD
from tf_mskd.methods.oto import OtO
from tf_mskd.models import add_exits, available_models, count_macs, create_model
from tf_mskd.optimizers import SGD
from tf_mskd.saving import load_model, save_model

__all__ = [
    "CE",
    "KD",
    "MSKD",
    "SGD",
    "Distiller",
    "OtO",
    "UserError",
    "accuracies",
    "add_exits",
    "available_models",
    "callbacks",
    "count_macs",
    "create_model",
    "export_student",
    "fit_weights",
    "load_model",
    "save_model",
    "vote",
]
