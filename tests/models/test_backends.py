"""The models run on JAX, without TensorFlow."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

PROGRAM = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import numpy as np
from tf_mskd import models
model = models.create_model("wrn_10_1", 5, exits="all", attention=True, width=0.25)
out = models.detach_stages(model)(np.zeros((2, 32, 32, 3), "float32"))
assert all(value.shape == (2, 5) for value in out.values())
assert "tensorflow" not in sys.modules
"""


@pytest.mark.run
@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="needs jax")
def test_runs_on_jax_without_tensorflow():
    root = pathlib.Path(__file__).parents[2]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, env=environment)


def test_no_module_of_the_package_names_tensorflow():
    folder = pathlib.Path(__file__).parents[2] / "tf_mskd" / "models"
    for path in folder.glob("*.py"):
        assert "tensorflow" not in path.read_text(), path.name
