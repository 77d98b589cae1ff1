"""A search over the settings of a run: each trial is a run of its own."""

import dataclasses
import hashlib
import math
import os
import pathlib
import typing

from tf_mskd.runs.config import Config
from tf_mskd.runs.settings import check_bounds, read_setting, text_of
from tf_mskd.utils.errors import UserError, nearest, unknown_name
from tf_mskd.utils.start import start_tensorflow
from tf_mskd.utils.tables import as_text
from tf_mskd.utils.units import scaled

TUNERS = {"random": "RandomSearch", "bayesian": "BayesianOptimization"}
LONGEST = 200  # bytes of a trial's folder name, before the code that tells it apart
FORMS = "low..high[:log] or a|b|c"


@dataclasses.dataclass(frozen=True)
class Trial:
    """A trial of a search that has ended.

    Args:
        settings: dict, setting -> the value tried.
        score: the task's main figure of the ensemble on the validation split, NaN if
            it failed.
        error: one line that says why it failed, or "".
    """

    settings: dict[str, typing.Any]
    score: float
    error: str = ""


def read_space(text: str) -> dict[str, tuple | list]:
    """Reads a search space; each value is read as the flag of its setting reads it.

    Args:
        text: str such as "lr=0.01..0.2:log;exit_head=dense|linear".

    Returns:
        dict, setting -> (low, high, log) for a range, of integers where the setting is
        one, or a list of values.

    Raises:
        UserError: for a setting that does not exist or comes twice, a form that cannot
            be read, or a value that the setting does not take.

    Example:
        >>> read_space("lr=0.01..0.2:log;l2=1e-4|5e-4;epochs=2..8")
        {'lr': (0.01, 0.2, True), 'l2': [0.0001, 0.0005], 'epochs': (2, 8, False)}
    """
    fields = {field.name: field for field in dataclasses.fields(Config)}
    fields.pop("run_dir")  # each trial has its own
    space: dict[str, tuple | list] = {}
    for part in filter(None, text.split(";")):
        name, _, values = (piece.strip() for piece in part.partition("="))
        if name not in fields:
            raise unknown_name("setting in --space", name, fields)
        if name in space:
            raise UserError(f"--space names {name} twice: drop one of them.")
        is_range = ".." in values and fields[name].type in (int, float)
        read = _range if is_range else _choices
        space[name] = read(fields[name], values)
    if not space:
        raise UserError("--space is empty: name settings, such as lr=0.01..0.2.")
    return space


def _range(field, text):
    span, colon, scale = text.partition(":")
    ends = [part.strip() for part in span.split("..")]
    if len(ends) != 2 or not all(ends):
        raise UserError(f"--space: {field.name} must be {FORMS}, got {text!r}.")
    low, high = (_value(field, end) for end in ends)
    if colon and scale != "log":
        raise UserError(
            f"--space: the scale of {field.name} must be log, got {scale!r}"
            f"{nearest(scale, ['log'])}"
        )
    if low >= high or (colon and low <= 0):
        order = "0 < low < high" if colon else "low < high"
        raise UserError(f"--space: {field.name} needs {order}, got {text!r}.")
    return low, high, bool(colon)


def _choices(field, text):
    """Values that KerasTuner can keep: settings of several parts stay text."""
    texts = [part.strip() for part in text.split("|")]
    values = [_value(field, part) for part in texts]
    if any(value in values[:k] for k, value in enumerate(values)):
        raise UserError(f"--space: {field.name} has one value twice, got {text!r}.")
    return texts if field.metadata["language"] else values


def _value(field, text):
    value = read_setting(field, text)
    check_bounds(field, value)
    return value


def search(
    config: Config,
    space: dict[str, tuple | list],
    tune_dir: str | os.PathLike,
    trials: int,
    tuner: str = "random",
) -> list[Trial]:
    """Runs the search; a trial that fails is noted, and the search goes on.

    Args:
        config: of the runs; needs a validation split.
        space: dict of `read_space`.
        tune_dir: path of the search's folder.
        trials: int > 0.
        tuner: "random" or "bayesian".

    Returns:
        list of `Trial`, the best first, those that failed last.

    Raises:
        UserError: without validation split, or if no trial has finished.
    """
    if not config.validation_fraction:
        raise UserError("A search needs --validation_fraction > 0, got 0.0.")
    start_tensorflow()
    import keras_tuner

    from tf_mskd.runs import experiment

    base: typing.Any = getattr(keras_tuner, TUNERS[tuner])

    class Search(base):
        """One run of the library per trial."""

        def run_trial(self, trial):
            chosen = {n: _choose(trial.hyperparameters, n, v) for n, v in space.items()}
            folder = pathlib.Path(tune_dir) / folder_name(chosen)
            try:
                run = dataclasses.replace(config, **chosen, run_dir=str(folder))
                return {"score": experiment.run(run).validation["ensemble"]}
            except Exception as error:
                # KerasTuner keeps it and goes on
                raise keras_tuner.errors.FailedTrialError(_line(error)) from error

    tuning = Search(
        objective=keras_tuner.Objective("score", "max"),
        max_trials=trials,
        max_consecutive_failed_trials=trials + 1,  # the rest may do better
        seed=config.seed,
        directory=str(tune_dir),
        project_name="search_3",  # former ones called the score otherwise
    )
    tuning.search()
    return _best_first(tuning.oracle.trials.values(), tune_dir)


def _best_first(trials, tune_dir):
    ended = [_ended(trial) for trial in trials]
    ended.sort(key=lambda t: -math.inf if t.error else t.score, reverse=True)
    if not ended or ended[0].error:
        last = ended[-1].error if ended else "none was run"
        raise UserError(f"No trial of {tune_dir} has finished; the last error: {last}")
    return ended


def _choose(hp, name, values):
    if isinstance(values, list):
        # KerasTuner makes integers of booleans
        flags = [str(v).lower() if isinstance(v, bool) else v for v in values]
        return hp.Choice(name, flags)
    low, high, log = values
    kind = hp.Int if isinstance(low, int) else hp.Float
    return kind(name, low, high, sampling="log" if log else "linear")


def folder_name(settings: dict[str, typing.Any]) -> str:
    """Returns the name of a trial's folder: its settings, readable and told apart.

    Example:
        >>> folder_name({"lr": 0.1, "exit_head": "dense"})
        'lr=0.1,exit_head=dense'
    """
    text = ",".join(f"{key}={value}" for key, value in settings.items())
    name = "".join("_" if c == "/" or not c.isprintable() else c for c in text)
    short = name.encode()[:LONGEST].decode(errors="ignore")
    if short == text:
        return text
    return f"{short}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _line(error):
    if isinstance(error, UserError):
        return str(error)
    return str(UserError(f"{type(error).__name__}: {error}"))


def _ended(trial):
    settings = trial.hyperparameters.values
    if trial.status == "COMPLETED":
        return Trial(settings, trial.score)
    lines = (trial.message or "").strip().splitlines() or [f"is {trial.status}"]
    return Trial(settings, math.nan, lines[-1].split("FailedTrialError: ")[-1])


def summary(trials: list[Trial], unit: str) -> str:
    """Returns a table of trials, their scores and the error of each that failed.

    Args:
        trials: list of `search`.
        unit: unit of the scores, fractions where it is "%".
    """
    fields = {field.name: field for field in dataclasses.fields(Config)}
    names = list(dict.fromkeys(name for trial in trials for name in trial.settings))
    rows = [[*names, "validation", "error"]]
    for trial in trials:
        row = [_shown(fields[name], trial.settings.get(name, "")) for name in names]
        score = "" if trial.error else f"{scaled(trial.score, unit):.2f}"
        rows.append([*row, score, trial.error])
    if not any(trial.error for trial in trials):
        rows = [row[:-1] for row in rows]
    return as_text(rows)


def _shown(field, value):
    return value if isinstance(value, str) else text_of(field, value)
