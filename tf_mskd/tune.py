"""Searches the settings of a run with KerasTuner, on the validation split.

    python -m tf_mskd.tune --flagfile=configs/digits/mskd.flags --tune_dir=runs/tune \\
        --space='lr=0.01..0.2:log;l2=1e-4|5e-4' --trials=8

Each trial is a run of its own, in a folder under --tune_dir that evaluate reads; report
--run_dirs=TUNE_DIR compares all. A trial that fails is listed with its error. The same
command again keeps the trials done. The test split plays no part.
"""

import shlex

from absl import flags

from tf_mskd.runs import cli
from tf_mskd.runs import flags as run_flags
from tf_mskd.runs.search import TUNERS, read_space, search, summary
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.units import shown


def define() -> None:
    """Defines the flags of the command, and those of a run."""
    run_flags.define()
    flags.DEFINE_string(
        "space",
        "",
        "Settings to search: name=low..high[:log] or name=a|b|c, ';' between; integers "
        "and booleans as in their flags.",
    )
    flags.DEFINE_integer("trials", 8, "Runs to do.", lower_bound=1)
    flags.DEFINE_string("tune_dir", "", "Folder of the search; required.")
    flags.DEFINE_enum("tuner", "random", list(TUNERS), "Search algorithm.")


def main() -> None:
    """Searches and prints the best settings as flags."""
    values = flags.FLAGS
    if not values.tune_dir:
        raise UserError("--tune_dir is empty: name the folder of the search.")
    config = cli.config()
    space = read_space(values.space)
    trials = search(config, space, values.tune_dir, values.trials, values.tuner)
    best = trials[0]
    from tf_mskd.runs.task import build_task

    task = build_task(config)
    print(summary(trials, task.unit))
    print(f"best validation {task.metric} {shown(best.score, task.unit)} with")
    for name, value in best.settings.items():
        print(shlex.quote(f"--{name}={value}"))


if __name__ == "__main__":
    cli.run(main, define, __doc__)
