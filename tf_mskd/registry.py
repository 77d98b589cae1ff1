"""Name to class for the methods: the file name is the registry name.

Asking for "mskd" imports `tf_mskd/methods/mskd.py`, whose class registers itself; there
is no list to keep.
"""

import importlib
import inspect
import pkgutil

from tf_mskd.errors import UserError, unknown_name

_methods = {}


def register(name):
    """Class decorator that makes a method known under `name`, its file's name."""

    def add(cls):
        known = _methods.setdefault(name, cls)
        if known.__qualname__ != cls.__qualname__:
            raise UserError(f"Method {name!r} is taken by {known.__qualname__}.")
        cls.registry_name = name
        return cls

    return add


def available_methods():
    """Returns the sorted names of all methods, importing every file of `methods/`."""
    package = importlib.import_module("tf_mskd.methods")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"tf_mskd.methods.{module.name}")
    return sorted(_methods)


def create_method(name, **arguments):
    """Creates the method called `name`, or the sum of several.

    Args:
        name: str, a name of `available_methods()`, or several with commas between
            ("kd,at"); see `tf_mskd.methods.composite.Composite`.
        **arguments: arguments of its constructor. Of several methods an argument goes
            to the one that has it, or to the one named as in {"kd.temperature": 3.0}.

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
    shares = {part: {} for part in names}
    for argument, value in arguments.items():
        if argument not in known:
            raise unknown_name(f"argument of method {name!r}", argument, known)
        owner, _, bare = argument.rpartition(".")
        owner = owner or next(n for n in names if bare in _own_defaults(n))
        shares[owner][bare] = value
    methods = [_methods[part](**shares[part]) for part in names]
    if len(methods) == 1:
        return methods[0]
    if len(set(names)) < len(names):
        raise UserError(f"Method {name!r} names a method twice.")
    return importlib.import_module("tf_mskd.methods.composite").Composite(methods)


def method_defaults(name):
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


def method_class(name):
    """Returns the class of one method.

    Raises:
        UserError: for an unknown name; the nearest valid one is shown.
    """
    if name not in _methods and name not in available_methods():
        raise unknown_name("method", name, available_methods())
    return _methods[name]


def _own_defaults(name):
    parameters = inspect.signature(method_class(name)).parameters.values()
    own = (p for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "dtype")
    return {p.name: p.default for p in own}
