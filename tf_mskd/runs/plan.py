"""The runs that one command does: the teacher's chain, the init's chain, its own."""

import dataclasses
import os
import pathlib

from tf_mskd.runs.config import Config
from tf_mskd.runs.inputs import check_inputs, check_same_run
from tf_mskd.runs.result import Result, read_result
from tf_mskd.runs.stages import required_config, required_name
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.run_paths import RunPaths
from tf_mskd.utils.tables import as_text

# what a run done first takes over from the run that needs it
HANDED_DOWN = (
    "data_dir",
    "strategy",
    "num_devices",
    "tensorboard",
    "checkpoint_minutes",
    "checkpoint_steps",
)
ACTIONS = {"finished": "reuse", "unfinished": "resume", "new": "train"}


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run of a plan.

    Args:
        role: "own", or what the run that needs it uses it as: "teacher" or "init".
        config: `Config`, with `run_dir`.
        status: "finished", "unfinished" or "new", by the files of its folder.
        teacher: str, path of the model it learns from, or "".
        init: str, path of the model that its weights come from, or "".
    """

    role: str
    config: Config
    status: str
    teacher: str = ""
    init: str = ""

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return pathlib.Path(self.run_dir).name

    @property
    def run_dir(self) -> str:
        """The run's folder."""
        return self.config.run_dir

    @property
    def result(self) -> Result:
        """The result of a finished run."""
        return read_result(RunPaths(self.run_dir).result)

    @property
    def told(self) -> str:
        """One line on a finished run."""
        return f"{self.run_dir} is finished: {self.result.summary()}"

    @property
    def needs(self) -> tuple[str, ...]:
        """Paths of the models that the run starts from."""
        return tuple(filter(None, (self.teacher, self.init)))


def plan(config: Config) -> list[PlannedRun]:
    """Lists the runs that `config` takes, each after those that it needs.

    A finished run needs nothing any more, so that the runs behind it are not listed.

    Args:
        config: `Config` with `run_dir`.

    Returns:
        list of `PlannedRun`, the own one last; each folder once.

    Raises:
        UserError: without `run_dir`; if a flagfile cannot be read or needs its own run
            first; if a teacher or the data are missing; if a folder holds, or two runs
            would use it for, a run with other settings.

    Example:
        >>> [run.role for run in plan(Config(run_dir="runs/no/such/run"))]
        ['own']
    """
    if not config.run_dir:
        raise UserError("--run_dir is empty: name the folder of the run.")
    return _chain("own", config, ())


def plan_cache(config: Config) -> list[PlannedRun]:
    """Lists the runs that the teacher cache of `config` takes: its teacher's chain."""
    if not config.teacher_cache:
        raise UserError("--teacher_cache is empty: name the folder to fill.")
    if config.strategy == "multi_worker":
        raise UserError(
            "--strategy=multi_worker makes one process of all machines, a cache is "
            "filled by each alone: give each --strategy=mirrored and a part of the "
            "images, --part=1/2 and --part=2/2."
        )
    check_inputs(config)
    return _first("teacher", config, ()) if config.teacher_flagfile else []


def _chain(role, config, above):
    folder = os.path.abspath(config.run_dir)
    if folder in above:
        raise UserError(
            f"The run of {config.run_dir!r} needs itself first: its --teacher_flagfile "
            "or --init_flagfile leads back to it. Name another flagfile or run folder."
        )
    check_same_run(config)
    status = _status(config)
    if status == "finished":
        return [PlannedRun(role, config, status)]
    check_inputs(config)
    above = (*above, folder)
    teacher, init, runs = config.teacher, "", []
    if config.teacher_flagfile and not config.untrained_teacher:
        runs += _first("teacher", config, above)
        teacher = runs[-1].run_dir
    if config.has_init:
        runs += _first("init", config, above)
        init = runs[-1].run_dir
    return _once([*runs, PlannedRun(role, config, status, teacher, init)])


def _first(role, config, above):
    """The chain that ends in the run of the teacher or of the initial weights."""
    folder = required_folder(config, role)
    handed_down = {name: getattr(config, name) for name in HANDED_DOWN}
    first = required_config(config, role, run_dir=folder, **handed_down)
    return _chain(role, first, above)


def required_folder(config: Config, role: str) -> str:
    """Returns the folder of the run of the teacher or of the initial weights.

    Args:
        config: `Config` with `run_dir`.
        role: str, "teacher" or "init".
    """
    beside = pathlib.Path(config.run_dir).parent / required_name(config, role)
    return getattr(config, f"{role}_run_dir") or str(beside)


def _once(runs):
    """The runs without repetitions: a teacher may be the initial weights too."""
    kept = {}
    for run in runs:
        known = kept.setdefault(os.path.abspath(run.run_dir), run)
        if known.config != run.config:
            raise UserError(
                f"Two runs with other settings would use {run.run_dir!r}: give one of "
                "them another --teacher_run_dir or --init_run_dir."
            )
    return list(kept.values())


def _status(config):
    paths = RunPaths(config.run_dir)
    if paths.result.exists():
        return "finished"
    return "unfinished" if paths.flags.exists() else "new"


def describe(runs: list[PlannedRun]) -> str:
    """Returns a table of the runs: what is done with each, and what it needs.

    Args:
        runs: list of `plan`.
    """
    rows = [["run", "action", "method", "epochs", "data set", "teacher", "init"]]
    for run in runs:
        config, teacher = run.config, run.teacher
        if config.untrained_teacher:
            teacher = f"{config.teacher_flagfile} (untrained)"
        row = [run.run_dir, ACTIONS[run.status], config.method, str(config.epochs)]
        rows.append([*row, config.dataset, teacher, run.init])
    return as_text(rows)
