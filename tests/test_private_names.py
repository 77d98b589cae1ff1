"""Private names of Keras and TensorFlow stand in one module."""

import ast
import pathlib

import keras
import pytest

from tf_mskd.utils import private

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / "tf_mskd").rglob("*.py"))
PRIVATE = ("keras.src", "tensorflow.python", "tensorflow.core", "tensorflow.lite")
OWNERS = ("self", "cls")


def private_names(source):
    """Attributes and imports that belong to nobody in the file, as text."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            is_own = isinstance(node.value, ast.Name) and node.value.id in OWNERS
            if not (is_own or node.attr.startswith("__")):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.startswith(PRIVATE)]
        elif isinstance(node, ast.ImportFrom) and node.module.startswith(PRIVATE):
            found.append(node.module)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
            name = getattr(node.args[1], "value", "")
            found += [name] if str(name).startswith("_") else []
    return found


@pytest.mark.parametrize(
    "source",
    [
        "model._flatten_layers()",
        "f(x)._keras_history",
        "from keras.src.ops import node",
        "import tensorflow.python.eager.context",
        "getattr(layer, '_functional', None)",
    ],
)
def test_private_names_are_seen(source):
    assert private_names(source)


def test_own_and_public_names_are_not_taken_for_them():
    assert not private_names("self._exits = cls._made(keras.ops.abs(x.__class__))")


def test_only_one_module_uses_private_names():
    users = {
        str(path.relative_to(ROOT)): names
        for path in FILES
        if (names := private_names(path.read_text()))
    }
    assert users.keys() == {"tf_mskd/utils/private.py"}, users


def test_each_of_them_says_for_which_version_it_holds():
    functions = [f for f in vars(private).values() if hasattr(f, "__code__")]
    assert len(functions) == 11
    for function in functions:
        text = function.__doc__
        assert "Keras 3.15: " in text or "TensorFlow 2.21: " in text, function.__name__


def test_a_call_is_found_and_made_again():
    image = keras.Input((3,))
    dense = keras.layers.Dense(2)
    node = private.node_of(dense(image))
    assert node.operation is dense and node.input_tensors[0] is image
    ones = keras.ops.ones((1, 3))
    again = private.call_again(node, {id(image): ones})
    assert again.numpy().tolist() == dense(ones).numpy().tolist()


def test_names_are_numbered_from_one_whatever_was_built_before():
    keras.layers.Dense(2)
    with private.fresh_names():
        names = [keras.layers.Dense(2).name for _ in range(2)]
    assert names == ["dense", "dense_1"]
    assert keras.layers.Dense(2).name not in names


def test_layers_inside_layers_are_found():
    image = keras.Input((4, 3))
    inner = keras.layers.Dense(2)
    outer = keras.layers.TimeDistributed(inner)
    model = keras.Sequential([image, outer])
    assert {model, outer, inner} <= set(private.all_layers(model))
