"""The examples in the docstrings give what they show."""

import doctest
import importlib
import pathlib

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "tf_mskd").rglob("*.py"))
    if ">>>" in path.read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    import tf_mskd

    module = importlib.import_module(name.removesuffix(".__init__"))
    names = {**vars(tf_mskd), **vars(module), "tf_mskd": tf_mskd, "np": np}
    if name.endswith("exit_phases"):  # its example goes on from a student and a teacher
        names["student"] = tf_mskd.create_model("resnet10", 10, exits="all", width=0.1)
        names["teacher"] = tf_mskd.create_model("resnet10", 10, width=0.1)
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    tests = doctest.DocTestFinder().find(module, globs=names)
    for test in tests:
        runner.run(test, out=report.append)
    assert sum(len(test.examples) for test in tests), f"{name}: no example found"
    assert not runner.failures, "".join(report)
