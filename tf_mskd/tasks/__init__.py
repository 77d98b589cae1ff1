"""What exits answer, one task a file; `Task` is the contract."""

import importlib
import inspect
import typing

from tf_mskd.tasks.base import Task
from tf_mskd.utils.choices import TASKS
from tf_mskd.utils.errors import UserError, unknown_name

__all__ = ["Task", "create_task", "task_config", "task_defaults", "task_from_config"]


def create_task(task: typing.Any, **arguments: typing.Any) -> Task:
    """Returns a task by its name; a `Task` passes.

    Args:
        task: str or `Task`.
        **arguments: arguments of the constructor of a task by name, such as
            "hashing", bits=32.

    Raises:
        UserError: for an unknown name or argument, or what is no task.

    Example:
        >>> create_task("classification").metric
        'accuracy'
    """
    if isinstance(task, Task):
        return task
    known = task_defaults(task)
    for name in arguments:
        if name not in known:
            raise _unknown_argument(task, name, known)
    return _class_of(task)(**arguments)


def task_defaults(task: str) -> dict[str, typing.Any]:
    """Returns a dict, argument name -> default, of a task's constructor.

    Raises:
        UserError: for an unknown name; the nearest valid one is shown.

    Example:
        >>> task_defaults("classification")
        {}
    """
    cls = _class_of(task)
    if cls.__init__ is object.__init__:
        return {}
    parameters = inspect.signature(cls).parameters.values()
    return {p.name: p.default for p in parameters}


def task_config(task: Task) -> dict[str, typing.Any]:
    """Returns a task as a dict: its name and its arguments."""
    return {"task": task.name, **task.get_config()}


def task_from_config(config: str | dict[str, typing.Any]) -> Task:
    """Makes a task of what `task_config` returned, or of a name alone.

    Example:
        >>> task_from_config(task_config(create_task("hashing", bits=16))).bits
        16
    """
    arguments = {"task": config} if isinstance(config, str) else dict(config)
    return create_task(arguments.pop("task"), **arguments)


def _unknown_argument(task, name, known):
    if not known:
        return UserError(f"Task {task!r} takes no arguments, got {name!r}.")
    return unknown_name(f"argument of task {task!r}", name, known)


def _class_of(task):
    if not isinstance(task, str):
        raise UserError(f"task must be a name or a Task, got {task!r}.")
    if task not in TASKS:
        raise unknown_name("task", task, TASKS)
    module = importlib.import_module(f"tf_mskd.tasks.{task}")
    classes = [cls for _, cls in inspect.getmembers(module, inspect.isclass)]
    tasks = [cls for cls in classes if issubclass(cls, Task)]
    return next(cls for cls in tasks if cls.name == task)
