"""Name to class for the methods: the file name is the registry name.

Asking for "mskd" imports `tf_mskd/methods/mskd.py`, whose class registers itself; there
is no list to keep.
"""

import importlib
import pkgutil
import typing

from tf_mskd.utils.errors import UserError, unknown_name

_methods: dict[str, type] = {}
RENAMED = {"phuong": "dbt"}  # names of earlier versions, still understood


def register(name: str) -> typing.Callable[[type], type]:
    """Class decorator that makes a method known under `name`, its file's name."""

    def add(cls):
        known = _methods.setdefault(name, cls)
        if known.__qualname__ != cls.__qualname__:
            raise UserError(f"Method {name!r} is taken by {known.__qualname__}.")
        cls.registry_name = name
        return cls

    return add


def available_methods(task: str | None = None) -> list[str]:
    """Returns the sorted names of all methods, importing every file of `methods/`.

    Args:
        task: name of a task; None for methods of any.
    """
    package = importlib.import_module("tf_mskd.methods")
    for module in pkgutil.iter_modules(package.__path__):
        if module.ispkg:  # common/, which holds no methods
            continue
        importlib.import_module(f"tf_mskd.methods.{module.name}")
    return sorted(name for name, cls in _methods.items() if _serves(cls, task))


def _serves(cls, task):
    tasks = getattr(cls, "tasks", ())
    return task is None or not tasks or task in tasks


def method_class(name: str) -> type:
    """Returns the class of one method.

    Args:
        name: str, a name of `available_methods()`, or one that it had before.

    Raises:
        UserError: for an unknown name; the nearest valid one is shown.
    """
    name = RENAMED.get(name, name)
    if name not in _methods and name not in available_methods():
        raise unknown_name("method", name, available_methods())
    return _methods[name]
