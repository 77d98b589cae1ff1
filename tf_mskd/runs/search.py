"""A search over the settings of a run: each trial is a run of its own."""

import dataclasses
import os
import pathlib
import typing

from tf_mskd.runs.config import Config, read_setting
from tf_mskd.utils.errors import UserError, unknown_name
from tf_mskd.utils.start import start_tensorflow

TUNERS = {"random": "RandomSearch", "bayesian": "BayesianOptimization"}


def read_space(text: str) -> dict[str, tuple | list]:
    """Reads a search space.

    Args:
        text: str such as "lr=0.01..0.2:log;exit_head=dense|linear".

    Returns:
        dict, setting -> (low, high, log) for a range or a list of values.

    Raises:
        UserError: for a setting that does not exist or a form that cannot be read.

    Example:
        >>> read_space("lr=0.01..0.2:log;l2=1e-4|5e-4")
        {'lr': (0.01, 0.2, True), 'l2': [0.0001, 0.0005]}
    """
    fields = {field.name: field for field in dataclasses.fields(Config)}
    space: dict[str, tuple | list] = {}
    for part in filter(None, text.split(";")):
        name, _, values = part.partition("=")
        if name not in fields:
            raise unknown_name("setting in --space", name, fields)
        try:
            if ".." in values:
                span, _, scale = values.partition(":")
                low, high = map(float, span.split(".."))
                space[name] = (low, high, scale == "log")
            else:
                space[name] = [
                    _value(fields[name], value) for value in values.split("|")
                ]
        except UserError:
            raise
        except ValueError:
            raise UserError(
                f"--space: {name} must be low..high[:log] or a|b|c, got {values!r}."
            ) from None
    if not space:
        raise UserError("--space is empty: name settings, such as lr=0.01..0.2.")
    return space


def _value(field, text):
    """A value that KerasTuner can keep: settings of several parts stay text."""
    value = read_setting(field, text)
    return text if field.metadata["language"] else value


def search(
    config: Config,
    space: dict[str, tuple | list],
    tune_dir: str | os.PathLike,
    trials: int,
    tuner: str = "random",
) -> tuple[dict[str, typing.Any], float]:
    """Runs the search and returns the best settings found.

    Args:
        config: of the runs; needs a validation split.
        space: dict of `read_space`.
        tune_dir: path of the search's folder.
        trials: int > 0.
        tuner: "random" or "bayesian".

    Returns:
        (dict, setting -> best value; its validation accuracy in [0, 1], that of the
        ensemble).

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
            name = ",".join(f"{key}={value}" for key, value in chosen.items())
            folder = pathlib.Path(tune_dir) / name.replace("/", "_")
            run = dataclasses.replace(config, **chosen, run_dir=str(folder))
            return {"accuracy": experiment.run(run).validation["ensemble"]}

    tuning = Search(
        objective=keras_tuner.Objective("accuracy", "max"),
        max_trials=trials,
        seed=config.seed,
        directory=str(tune_dir),
        project_name="search_2",  # "search" held scores in percent
    )
    tuning.search()
    done = [t for t in tuning.oracle.trials.values() if t.status == "COMPLETED"]
    if not done:
        raise UserError(f"No trial of {tune_dir} has finished; see the lines above.")
    best = max(done, key=lambda trial: trial.score)
    return best.hyperparameters.values, best.score


def _choose(hp, name, values):
    if isinstance(values, list):
        return hp.Choice(name, values)
    low, high, log = values
    return hp.Float(name, low, high, sampling="log" if log else "linear")
