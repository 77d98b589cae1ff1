"""The task of a configuration."""

from tf_mskd.runs import parsers
from tf_mskd.runs.config import Config
from tf_mskd.tasks import Task, create_task, task_defaults


def build_task(config: Config) -> Task:
    """Creates the task that `config` names, with its arguments.

    Raises:
        UserError: for an argument that it does not take.

    Example:
        >>> build_task(Config(task="hashing", task_args="bits=16")).bits
        16
    """
    defaults = task_defaults(config.task)
    arguments = parsers.typed("task_args", config.task_args, defaults)
    return create_task(config.task, **arguments)
