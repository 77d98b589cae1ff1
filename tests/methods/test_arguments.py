"""Arguments of all methods: bad ones are refused in one line, configs keep the rest."""

import json

import pytest

from tf_mskd import UserError
from tf_mskd.methods.common import registry
from tf_mskd.methods.common.create import create_method, method_defaults
from tf_mskd.methods.kd import KD

NAN = float("nan")
POSITIVE = [0, -1.0, NAN, "four"]
BAD = [
    ("ab", "margin", POSITIVE, "> 0"),
    ("afd", "dim", [0], ">= 1"),
    ("afd", "every", [0], ">= 1"),
    ("afd", "temperature", POSITIVE, "> 0"),
    ("aft", "temperature", POSITIVE, "> 0"),
    ("aft", "tau", [-1.0], "> 0"),
    ("aft", "block", [0], ">= 1"),
    ("amkd", "temperature", POSITIVE, "> 0"),
    ("amkd", "step_size", [-1.0], "> 0"),
    ("amkd", "pixel_std", [0.0], "> 0"),
    ("amkd", "margin", [-0.1, NAN], ">= 0"),
    ("amkd", "steps", [0, "ten"], ">= 1"),
    ("amkd", "num_candidates", [0], ">= 1"),
    ("atf", "temperature", POSITIVE, "> 0"),
    ("atf_teacher", "temperature", POSITIVE, "> 0"),
    ("bilateral", "temperature", POSITIVE, "> 0"),
    ("bilateral", "teacher_rate", [0.0], "> 0"),
    ("byot", "temperature", POSITIVE, "> 0"),
    ("cc", "dim", [0], ">= 1"),
    ("ccd", "temperature", POSITIVE, "> 0"),
    ("crd", "num_negatives", [0], ">= 1"),
    ("crd", "dim", [0], ">= 1"),
    ("crd", "temperature", POSITIVE, "> 0"),
    ("crd", "momentum", [1, -0.1, NAN], r"in \[0, 1\)"),
    ("dbt", "temperature", POSITIVE, "> 0"),
    ("dbt", "scale", [0.0], "> 0"),
    ("dist", "temperature", POSITIVE, "> 0"),
    ("dkd", "temperature", POSITIVE, "> 0"),
    ("dkd", "warmup_epochs", [-1], ">= 0"),
    ("dml", "temperature", POSITIVE, "> 0"),
    ("eed", "temperature", POSITIVE, "> 0"),
    ("fitnet", "tap", [0], ">= 1"),
    ("hsakd", "temperature", POSITIVE, "> 0"),
    ("kd", "temperature", POSITIVE, "> 0"),
    ("kd", "decay", POSITIVE, "> 0"),
    ("mskd", "temperature", POSITIVE, "> 0"),
    ("mskd", "guide", [-1], ">= 0"),
    ("oto", "temperature", POSITIVE, "> 0"),
    ("purf", "noise", [-0.1], ">= 0"),
    ("purf", "pixel_std", [0.0], "> 0"),
    ("sskd", "temperature", POSITIVE, "> 0"),
    ("sskd", "contrast_temperature", [-1.0], "> 0"),
    ("sskd", "transformed_fraction", [1.5, NAN], r"in \[0, 1\]"),
    ("sskd", "contrast_fraction", [-0.1], r"in \[0, 1\]"),
    ("sskd", "crop_padding", [-1], ">= 0"),
    ("sskd_teacher", "crop_padding", [-1], ">= 0"),
    ("triplet", "margin", [-1.0], ">= 0"),
    ("triplet", "temperature", POSITIVE, "> 0"),
    ("tskd", "temperature", POSITIVE, "> 0"),
    ("vid", "initial_variance", [0.0, 1e-5, NAN], "> 1e-05"),
]
# method, argument, misspelt choice, the nearest valid one
MISSPELT = [
    ("byot", "skip", "frist", "first"),
    ("cc", "form", "kernl", "kernel"),
    ("eed", "form", "mes", "mse"),
    ("ft", "form", "papr", "paper"),
    ("kd", "preset", "hsak", "hsakd"),
    ("mskd", "preset", "hsak", "hsakd"),
    ("oto", "preset", "hsak", "hsakd"),
    ("paraphraser", "loss", "l2", "l1"),
    ("tskd", "supervised", "lats", "last"),
    ("tskd", "features", "featur", "feature"),
]
# arguments that take any value of their type
UNCHECKED = [("atf", "alpha"), ("atf_teacher", "alpha"), ("eed", "ensemble")]
UNCHECKED += [("crd", "num_examples"), ("oto", "exit_map")]  # refused with the networks
CHOICES = {
    **{(name, argument): choice for name, argument, _, choice in MISSPELT},
    ("eed", "form"): "kl",
    ("ft", "form"): "benchmark",
    ("oto", "exit_map"): "1:2,2:2",
}


@pytest.mark.parametrize("name, argument, values, expected", BAD)
def test_values_out_of_range_are_refused(name, argument, values, expected):
    for value in values:
        with pytest.raises(UserError) as error:
            create_method(name, **{argument: value})
        error.match(f"^{argument} must be {expected}, got {value!r}.$")


@pytest.mark.parametrize("name, argument, value, nearest", MISSPELT)
def test_misspelt_choices_are_answered_with_the_nearest(name, argument, value, nearest):
    message = f"^Unknown {argument} {value!r}; did you mean {nearest!r}"
    with pytest.raises(UserError, match=message):
        create_method(name, **{argument: value})


def test_every_argument_of_the_listed_methods_is_checked():
    listed = {(name, argument) for name, argument, *_ in (*BAD, *MISSPELT, *UNCHECKED)}
    for name in {name for name, _ in listed}:
        arguments = {argument for method, argument in listed if method == name}
        assert arguments == set(method_defaults(name)), name


def other_than(name, argument, default):
    """A valid value of an argument that is not its default."""
    if (name, argument) in CHOICES:
        return CHOICES[name, argument]
    if default is None:
        return 2.0
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 1
    return default / 2 if isinstance(default, float) else default


def through_json(method):
    """The configuration of a method as it comes back from a file."""
    return json.loads(json.dumps(method.get_config()))


@pytest.mark.parametrize("name", registry.available_methods())
def test_a_config_keeps_every_argument(name):
    defaults = method_defaults(name)
    given = {key: other_than(name, key, value) for key, value in defaults.items()}
    method = create_method(name, **given)
    config = through_json(method)
    assert {key: config[key] for key in given} == given
    again = type(method).from_config(config)
    assert again.get_config() == method.get_config()
    assert again.dtype_policy == method.dtype_policy
    assert again.default_weights == method.default_weights
    for key in set(given) - {"exit_map"}:  # kept as a dict
        assert getattr(again, key) == getattr(method, key) == given[key], key


def test_a_config_keeps_the_arguments_of_several_methods():
    method = create_method("kd,at,oto", **{"kd.decay": 4.0, "oto.exit_map": {1: 2}})
    again = type(method).from_config(through_json(method))
    assert again.registry_name == "kd,at,oto"
    assert again.methods[0].decay == 4.0
    assert again.methods[2].exit_map == {1: 2}
    assert again.default_weights == method.default_weights


def test_a_config_keeps_the_dtype_and_the_name():
    method = KD(name="first", dtype="float64")
    again = type(method).from_config(through_json(method))
    assert (again.name, again.compute_dtype) == ("first", "float64")


def test_what_every_layer_takes_is_no_argument_of_a_method():
    assert method_defaults("at") == method_defaults("ce") == {}
