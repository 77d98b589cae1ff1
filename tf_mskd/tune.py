"""Searches the settings of a run with KerasTuner, on the validation split.

    python -m tf_mskd.tune --flagfile=configs/digits/mskd.flags --tune_dir=runs/tune \\
        --space='lr=0.01..0.2:log;l2=1e-4|5e-4' --trials=8

Each trial is a run of its own, in a folder under --tune_dir that evaluate and report
read. The same command again keeps the finished trials. The test split plays no part.
"""

import dataclasses
import pathlib

from absl import flags

from tf_mskd.runs import cli
from tf_mskd.runs.config import Config
from tf_mskd.runs.flags import config_from, define
from tf_mskd.utils.errors import UserError, unknown_name

SPACE = flags.DEFINE_string(
    "space", "", "Settings to search: name=low..high[:log] or name=a|b|c, ';' between."
)
TRIALS = flags.DEFINE_integer("trials", 8, "Runs to do.", lower_bound=1)
TUNE_DIR = flags.DEFINE_string("tune_dir", "", "Folder of the search; required.")
TUNERS = {"random": "RandomSearch", "bayesian": "BayesianOptimization"}
TUNER = flags.DEFINE_enum("tuner", "random", list(TUNERS), "How to search.")


def read_space(text):
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
    fields = {field.name: field.type for field in dataclasses.fields(Config)}
    space = {}
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
                space[name] = [fields[name](value) for value in values.split("|")]
        except ValueError:
            raise UserError(
                f"--space: {name} must be low..high[:log] or a|b|c, got {values!r}."
            ) from None
    if not space:
        raise UserError("--space is empty: say what to search, such as lr=0.01..0.2.")
    return space


def search(config, space, tune_dir, trials, tuner="random"):
    """Runs the search and returns the best settings found.

    Args:
        config: `Config` of the runs; needs a validation split.
        space: dict of `read_space`.
        tune_dir: str or path of the search's folder.
        trials: int > 0.
        tuner: "random" or "bayesian".

    Returns:
        (dict, setting -> best value; float, its validation accuracy in percent).

    Raises:
        UserError: without validation split, or if no trial has finished.
    """
    import keras_tuner

    from tf_mskd.runs import experiment

    if not config.validation_fraction:
        raise UserError("A search needs --validation_fraction > 0, got 0.0.")
    vote = f"mean_{config.ensemble}"

    class Search(getattr(keras_tuner, TUNERS[tuner])):
        """One run of the library per trial."""

        def run_trial(self, trial):
            chosen = {n: _choose(trial.hyperparameters, n, v) for n, v in space.items()}
            name = ",".join(f"{key}={value}" for key, value in chosen.items())
            folder = pathlib.Path(tune_dir) / name.replace("/", "_")
            run = dataclasses.replace(config, **chosen, run_dir=str(folder))
            return {"accuracy": experiment.run(run)["validation"][vote]}

    tuner = Search(
        objective=keras_tuner.Objective("accuracy", "max"),
        max_trials=trials,
        seed=config.seed,
        directory=str(tune_dir),
        project_name="search",
    )
    tuner.search()
    done = [t for t in tuner.oracle.trials.values() if t.status == "COMPLETED"]
    if not done:
        raise UserError(f"No trial of {tune_dir} has finished; see the lines above.")
    best = max(done, key=lambda trial: trial.score)
    return best.hyperparameters.values, best.score


def _choose(hp, name, values):
    if isinstance(values, list):
        return hp.Choice(name, values)
    low, high, log = values
    return hp.Float(name, low, high, sampling="log" if log else "linear")


def main():
    """Searches and prints the best settings as flags."""
    if not TUNE_DIR.value:
        raise UserError("--tune_dir is empty: say which folder the search shall use.")
    config = config_from(flags.FLAGS)
    space = read_space(SPACE.value)
    best, score = search(config, space, TUNE_DIR.value, TRIALS.value, TUNER.value)
    print(f"best validation accuracy {score:.2f} % with")
    for name, value in best.items():
        print(f"--{name}={value}")


if __name__ == "__main__":
    define()
    cli.run(main, __doc__)
