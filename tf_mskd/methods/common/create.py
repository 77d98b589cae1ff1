"""Methods by name, with their arguments: one, or several added up."""

import inspect
import typing

from tf_mskd.methods.common.composite import Composite
from tf_mskd.methods.common.method import Method
from tf_mskd.methods.common.registry import method_class
from tf_mskd.utils.errors import UserError, unknown_name


def create_method(name: str, **arguments: typing.Any) -> Method:
    """Creates the method called `name`, or the sum of several.

    Args:
        name: str, a name of `available_methods()`, or several with commas between
            ("kd,at"); see `tf_mskd.methods.common.composite.Composite`.
        **arguments: arguments of its constructor. Of several methods an argument
            belongs to the one that has it, or to the one named as in
            {"kd.temperature": 3.0}.

    Returns:
        The `Method` instance.

    Raises:
        UserError: for an unknown name or argument; the nearest valid one is shown.

    Example:
        >>> create_method("mskd", temperature=3.0).temperature
        3.0
    """
    names = [part.strip() for part in name.split(",")]
    known = method_defaults(name)
    owned = {part: {} for part in names}
    for argument, value in arguments.items():
        if argument not in known:
            raise unknown_name(f"argument of method {name!r}", argument, known)
        owner, _, bare = argument.rpartition(".")
        owner = owner or next(n for n in names if bare in _own_defaults(n))
        owned[owner][bare] = value
    methods = [method_class(part)(**owned[part]) for part in names]
    if len(methods) == 1:
        return methods[0]
    if len(set(names)) < len(names):
        raise UserError(f"Method {name!r} names a method twice.")
    return Composite(methods)


def method_defaults(name: str) -> dict[str, typing.Any]:
    """Returns a dict, argument name -> default, of a method's constructor.

    Of several methods each argument is listed as "method.argument", and alone as well
    where only one of them has it.

    Raises:
        UserError: for an unknown name; the nearest valid one is shown.
    """
    names = [part.strip() for part in name.split(",")]
    if len(names) == 1:
        return _own_defaults(name)
    owned = {part: _own_defaults(part) for part in names}
    bare = [argument for defaults in owned.values() for argument in defaults]
    known = {}
    for part, defaults in owned.items():
        for argument, default in defaults.items():
            known[f"{part}.{argument}"] = default
            if bare.count(argument) == 1:
                known[argument] = default
    return known


def method_config(method: Method) -> dict[str, typing.Any]:
    """Returns a method as a dict: its registered name and its arguments.

    Raises:
        UserError: for a method without a registered name.
    """
    name = getattr(method, "registry_name", None)
    if name is None:
        raise UserError(
            f"Files keep a method by its name, {type(method).__name__} has none: give "
            "it one with @tf_mskd.methods.register(name)."
        )
    return {"method": name, **method.get_config()}


def method_from_config(config: dict[str, typing.Any]) -> Method:
    """Makes a method of what `method_config` returned.

    Example:
        >>> method_from_config(method_config(create_method("kd,at"))).registry_name
        'kd,at'
    """
    arguments = {n: value for n, value in config.items() if n != "method"}
    if "methods" in arguments:
        return Composite.from_config(arguments)
    cls: typing.Any = method_class(config["method"])
    return cls.from_config(arguments)


def _own_defaults(name):
    parameters = inspect.signature(method_class(name)).parameters.values()
    own = (p for p in parameters if p.kind is not p.VAR_KEYWORD)
    of_layers = ("dtype", "name")  # which a method without a constructor shows
    return {p.name: p.default for p in own if p.name not in of_layers}
