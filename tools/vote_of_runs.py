"""The ensemble of students that were trained apart, beside one student of many exits.

    python tools/vote_of_runs.py --run_dirs=runs/kd_0,runs/kd_1,runs/kd_2,runs/kd_3 \\
        --size=2 --against=runs/oto_0,runs/oto_1

Finished runs of one data set, in groups of --size in the order given: each group
answers with the mean of its members' last exits' logits, and costs what they cost
together. With --against, as many runs as there are groups: the differences, paired in
order, and their 95 % interval by Student's t. The tool reads the test split.
"""

import pathlib
import statistics
import sys

from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from tf_mskd.runs import cli
from tf_mskd.runs.comparison import read_runs  # noqa: E402
from tf_mskd.runs.inputs import check_finished_run  # noqa: E402
from tf_mskd.runs.paired import t_interval  # noqa: E402
from tf_mskd.utils.errors import UserError  # noqa: E402
from tf_mskd.utils.start import start_tensorflow  # noqa: E402
from tf_mskd.utils.tables import as_text  # noqa: E402
from tf_mskd.utils.units import scaled, shown  # noqa: E402


def define():
    """Defines the flags of the tool."""
    flags.DEFINE_list("run_dirs", [], "Folders of finished runs; required.")
    flags.DEFINE_integer("size", 2, "Members of an ensemble.", lower_bound=2)
    flags.DEFINE_list("against", [], "Folders of runs to compare with, one a group.")


def groups_of(folders, size):
    """The folders in groups of `size`; each once, none left over."""
    if not folders:
        raise UserError("--run_dirs is empty: it is required.")
    if len(set(folders)) < len(folders) or len(folders) % size:
        raise UserError(
            f"--run_dirs must be different and as many as groups of --size={size} "
            f"take, got {len(folders)}: leave some out."
        )
    starts = range(0, len(folders), size)
    return [tuple(folders[start : start + size]) for start in starts]


class Vote:
    """The members of an ensemble: their answers, costs and figure.

    Args:
        folders: list of str, run folders of one task and data set.
    """

    def __init__(self, folders):
        from tf_mskd.runs.finished_run import FinishedRun
        from tf_mskd.tasks.meter import Meter

        for folder in folders:
            check_finished_run(folder, "run_dirs")
        runs = [FinishedRun(folder) for folder in folders]
        sets = {(run.config.dataset, run.config.task) for run in runs}
        if len(sets) > 1:
            told = ", ".join(" of ".join(one) for one in sorted(sets))
            raise UserError(f"Runs of {told} cannot answer together: name runs of one.")
        answers, label = {}, None
        for place, run in enumerate(runs, start=1):
            logits, label = run.logits(run.student())
            answers[f"exit_{place}"] = logits[list(logits)[-1]]
        meter = Meter(runs[0].task)
        meter.update(answers, label)
        self.figure, self.unit = meter.main()["ensemble"], runs[0].task.unit
        results = [run.result for run in read_runs(folders).values()]
        self.macs = sum(_of_last_exit(r.macs) for r in results)
        self.params = sum(_of_last_exit(r.exit_params or {}, r.params) for r in results)


def _of_last_exit(table, otherwise=0):
    """The value of the deepest exit, of a table by exit."""
    exits = [name for name in table if name.startswith("exit_")]
    return table[max(exits, key=lambda n: int(n[5:]))] if exits else otherwise


def differences(votes, against):
    """Each vote's figure minus that of the run at its place, and their text."""
    others = list(read_runs(against).values())
    pairs = zip(votes, others, strict=True)
    found = [vote.figure - run.result.test[run.main] for vote, run in pairs]
    text = f"{scaled(statistics.fmean(found), votes[0].unit):+.2f}"
    if len(found) > 1:
        low, high = (scaled(end, votes[0].unit) for end in t_interval(found))
        text += f", 95 % interval {low:+.2f} to {high:+.2f}"
    return found, f"minus --against, mean of {len(found)}: {text}"


def main():
    """Prints the table of the ensembles."""
    values = flags.FLAGS
    groups = groups_of(values.run_dirs, values.size)
    if values.against and len(values.against) != len(groups):
        raise UserError(
            f"--against must name one run for each of {len(groups)} groups, got "
            f"{len(values.against)}."
        )
    start_tensorflow()
    votes = [Vote(list(group)) for group in groups]
    rows = [["members", "ensemble", "params", "MACs"]]
    for group, vote in zip(groups, votes, strict=True):
        names = ", ".join(pathlib.Path(folder).name for folder in group)
        row = [names, shown(vote.figure, vote.unit), f"{vote.params:,}"]
        rows.append([*row, f"{vote.macs:,}"])
    print(as_text(rows))
    figures = [scaled(vote.figure, vote.unit) for vote in votes]
    if len(figures) > 1:
        told = f"{statistics.fmean(figures):.2f} ± {statistics.stdev(figures):.2f}"
        print(f"mean ± sample deviation of {len(figures)}: {told}")
    if values.against:
        print(differences(votes, values.against)[1])


if __name__ == "__main__":
    cli.run(main, define, __doc__)
