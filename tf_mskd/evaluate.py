"""Measures a finished run again: every exit, the ensemble and, if asked, all subsets.

python -m tf_mskd.evaluate --run_dir=runs/digits/mskd --subsets
"""

import pathlib

from absl import flags

from tf_mskd import cli
from tf_mskd import ensemble as ensembles
from tf_mskd.errors import UserError

RUN_DIR = flags.DEFINE_string("run_dir", "", "Folder of a finished run; required.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "Data folder instead of the run's.")
SUBSETS = flags.DEFINE_boolean("subsets", False, "Also every subset of the exits.")
WHICH = flags.DEFINE_enum(
    "which", "last", ["last", "best"], "Student: last epoch, or best by validation."
)


def evaluate_run(run_dir, data_dir="", which="last", subsets=False):
    """Runs the student of a finished run over its test split.

    Args:
        run_dir: str or path of the run folder.
        data_dir: str, folder of the prepared data instead of the run's own.
        which: "last" or "best" (by the validation split).
        subsets: bool, also measure the vote of every subset of the exits.

    Returns:
        dict, name -> accuracy in percent: as "test" (or "test_best") of result.json,
        and with `subsets` names such as "exit_1+exit_3" for mean logits.

    Raises:
        UserError: if the folder holds no finished run or its data are missing.
    """
    import dataclasses

    from tf_mskd import experiment
    from tf_mskd.data.run_data import Data
    from tf_mskd.distribution import create_strategy
    from tf_mskd.evaluation import Evaluator
    from tf_mskd.flags import read_flagfile
    from tf_mskd.run_folder import read_result
    from tf_mskd.saving import load_model

    folder = pathlib.Path(run_dir)
    if not run_dir or not (folder / "result.json").is_file():
        raise UserError(
            f"--run_dir={str(run_dir)!r} holds no finished run (no result.json): give "
            "the folder of a run that tf_mskd.train has finished."
        )
    config = read_flagfile(folder / "flags.txt")
    config = dataclasses.replace(config, data_dir=data_dir or config.data_dir)
    file = folder / ("student.keras" if which == "last" else "student_best.keras")
    strategy = create_strategy("auto")
    with strategy.scope():
        student = load_model(file)
    stream = Data(config).test_stream()
    logits, labels = Evaluator(strategy, stream).logits(student)
    weights = read_result(folder / "result.json").get("fitted_weights")
    weights = weights if which == "last" else None
    if weights and set(weights) != set(logits):
        raise UserError(
            f"{folder / 'result.json'} is damaged: fitted_weights is for "
            f"{', '.join(weights)}, the student has {', '.join(logits)}."
        )
    table = experiment.test_table(logits, labels, config.ensemble, weights)
    if subsets:
        for names in ensembles.subsets(list(logits)):
            chosen = {name: logits[name] for name in names}
            table["+".join(names)] = ensembles.accuracies(chosen, labels)["mean_logits"]
    return table


def main():
    """Prints the accuracies."""
    table = evaluate_run(RUN_DIR.value, DATA_DIR.value, WHICH.value, SUBSETS.value)
    width = max(map(len, table))
    for name, value in table.items():
        print(f"{name:{width}}  {value:6.2f} %")


if __name__ == "__main__":
    cli.run(main, __doc__)
