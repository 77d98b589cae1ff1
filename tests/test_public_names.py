"""The public names are annotated, so that `py.typed` promises what is there."""

import inspect

import pytest

import tf_mskd
from tf_mskd.methods.common.method import Method

PUBLIC = {name: getattr(tf_mskd, name) for name in tf_mskd.__all__}
CALLABLE = {name: thing for name, thing in PUBLIC.items() if callable(thing)}


def _functions(thing):
    """Yields a function, or the public methods that a class adds to its bases."""
    if not inspect.isclass(thing):
        yield thing
        return
    bases = thing.__mro__[1:] if thing is not Method else ()
    inherited = {name for base in bases for name in vars(base)} - {"__init__"}
    for name, member in vars(thing).items():
        member = member.fget if isinstance(member, property) else member
        if inspect.isfunction(member) and name not in inherited:
            if name == "__init__" or name[0] != "_":
                yield member


@pytest.mark.parametrize("name", [*CALLABLE, "Method"])
def test_every_argument_and_return_has_a_type(name):
    missing = []
    for function in _functions({**CALLABLE, "Method": Method}[name]):
        signature = inspect.signature(function)
        for parameter in signature.parameters.values():
            variable = parameter.kind in (
                parameter.VAR_KEYWORD,
                parameter.VAR_POSITIONAL,
            )
            if parameter.annotation is parameter.empty and not (
                variable or parameter.name == "self"
            ):
                missing.append(f"{function.__qualname__}: {parameter.name}")
        returns = signature.return_annotation
        if returns is signature.empty and function.__name__ != "__init__":
            missing.append(f"{function.__qualname__}: return")
    assert not missing
