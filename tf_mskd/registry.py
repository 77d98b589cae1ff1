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
    """Creates the method called `name`.

    Args:
        name: str, a name of `available_methods()`.
        **arguments: arguments of its constructor.

    Returns:
        The `Method` instance.

    Raises:
        UserError: for an unknown name or argument; the nearest valid one is shown.

    Example:
        >>> create_method("mskd", temperature=3.0).temperature
        3.0
    """
    known = method_defaults(name)
    for argument in arguments:
        if argument not in known:
            raise unknown_name(f"argument of method {name!r}", argument, known)
    return _methods[name](**arguments)


def method_defaults(name):
    """Returns a dict, argument name -> default, of a method's constructor.

    Raises:
        UserError: for an unknown name; the nearest valid one is shown.
    """
    if name not in _methods and name not in available_methods():
        raise unknown_name("method", name, available_methods())
    parameters = inspect.signature(_methods[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD}
