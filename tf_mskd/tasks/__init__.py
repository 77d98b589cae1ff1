"""What exits answer, one task a file; `Task` is the contract."""

import importlib
import inspect
import typing

from tf_mskd.tasks.base import Task
from tf_mskd.utils.choices import TASKS
from tf_mskd.utils.errors import UserError, unknown_name

__all__ = ["Task", "create_task"]


def create_task(task: typing.Any) -> Task:
    """Returns a task by its name; a `Task` passes.

    Raises:
        UserError: for an unknown name, or what is no task.

    Example:
        >>> create_task("classification").metric
        'accuracy'
    """
    if isinstance(task, Task):
        return task
    if not isinstance(task, str):
        raise UserError(f"task must be a name or a Task, got {task!r}.")
    if task not in TASKS:
        raise unknown_name("task", task, TASKS)
    module = importlib.import_module(f"tf_mskd.tasks.{task}")
    classes = [cls for _, cls in inspect.getmembers(module, inspect.isclass)]
    tasks = [cls for cls in classes if issubclass(cls, Task)]
    return next(cls for cls in tasks if cls.name == task)()
