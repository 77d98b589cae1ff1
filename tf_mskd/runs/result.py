"""result.json: what a finished run has measured."""

import dataclasses
import os
import re

from tf_mskd.utils import files
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.units import PERCENT, shown

FORMAT = 2  # 1 had no number, and accuracies in percent
EXIT = re.compile(r"exit_[1-9]\d*")
MACS = re.compile(rf"{EXIT.pattern}|ensemble")
FORMER_ENSEMBLES = {
    "mean_logits": "ensemble_logits",
    "mean_probabilities": "ensemble_probabilities",
    "fitted": "ensemble_fitted",
}
FIGURE = re.compile(rf"{MACS.pattern}(_(logits|probabilities|fitted))?")


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a run, in figures of its task: fractions where the unit is "%".

    A table of figures holds each exit by name, "ensemble" (the ensemble that the run
    uses) and beside it the other ensembles, see `tasks.meter.Meter`.

    Args:
        model: name of the student's network.
        teacher: name of the teacher's network, or None.
        method: name of the method.
        phases: "joint", "progressive" or "detached".
        ensemble: what the run's ensemble averages: "logits" or "probabilities".
        seed: seed of the run.
        epochs: length of the run.
        train_examples: images that it trained on.
        params: parameters of the student, without auxiliary heads.
        macs: multiply-accumulates of each exit alone, and "ensemble" of all of them.
        seconds: duration of the training.
        test: the main figure on the test split after the last epoch.
        test_best: that of the best student by validation, or None.
        test_teacher: that of a teacher that the run has trained, or None.
        validation: the main figure on the validation split, or None without one.
        fitted_weights: weight of each exit in "ensemble_fitted", or None.
        task: name of the task.
        metric: name of the main figure.
        step_metric: name of the figure in the logs of training.
        unit: unit of both.
        test_more: further figures on the test split, figure -> table, or None.
        exit_params: parameters of what each exit alone needs, or None.
    """

    model: str
    teacher: str | None
    method: str
    phases: str
    ensemble: str
    seed: int
    epochs: int
    train_examples: int
    params: int
    macs: dict[str, int]
    seconds: float
    test: dict[str, float]
    test_best: dict[str, float] | None = None
    test_teacher: dict[str, float] | None = None
    validation: dict[str, float] | None = None
    fitted_weights: dict[str, float] | None = None
    task: str = "classification"
    metric: str = "accuracy"
    step_metric: str = "accuracy"
    unit: str = PERCENT
    test_more: dict[str, dict[str, float]] | None = None
    exit_params: dict[str, int] | None = None

    def to_json(self) -> dict:
        """Returns the content of result.json; what is None is left out."""
        values = dataclasses.asdict(self)
        known = {name: value for name, value in values.items() if value is not None}
        return {"format": FORMAT, "teacher": None, **known}

    def summary(self) -> str:
        """Returns the main figure on the test split as one line."""
        parts = [f"{name} {shown(v, self.unit)}" for name, v in self.test.items()]
        return f"test {', '.join(parts)}"


def write_result(path: str | os.PathLike, result: Result) -> None:
    """Writes result.json, atomically."""
    files.write_json(path, result.to_json())


def read_result(path: str | os.PathLike, former: bool = False) -> Result:
    """Reads the result.json of a finished run.

    Args:
        path: str or path of the file.
        former: bool, reads format 1 too, which a report can show but no run can use:
            its percentages become fractions, and what it lacks is empty.

    Raises:
        UserError: if it is damaged, or of another format.
    """
    values = files.read_json(path)
    values = dict(values) if isinstance(values, dict) else {}
    number = values.pop("format", 1)
    if number == 1 and former:
        values = _of_format_1(values)
    elif number != FORMAT and "test" in values:
        raise UserError(
            f"{path} has format {number!r}, this version reads {FORMAT} (1 held "
            "percentages): train the run again in another --run_dir."
        )
    if not _is_valid(values):
        raise UserError(
            f"{path} is damaged: it holds no test accuracies, parameters, MACs and "
            "seconds. Remove it, and the same command measures the run again."
        )
    return Result(**values)


def _of_format_1(values):
    test = values.get("test")
    if not _is_table(test, re.compile(".*"), highest=100.0):
        return {}
    named = ((FORMER_ENSEMBLES.get(name, name), value) for name, value in test.items())
    kept = ("params", "macs", "seconds")
    known = {name: values[name] for name in kept if name in values}
    texts = {name: values.get(name, "") for name in ("model", "method", "phases")}
    counts = {n: values.get(n, 0) for n in ("seed", "epochs", "train_examples")}
    return {
        **texts,
        **counts,
        **known,
        "teacher": values.get("teacher"),
        "ensemble": "",
        "test": {name: value / 100 for name, value in named},
    }


def _is_valid(values):
    fields = dataclasses.fields(Result)
    required = {f.name for f in fields if f.default is dataclasses.MISSING}
    if not required <= values.keys() <= {f.name for f in fields}:
        return False
    texts = [values[name] for name in ("model", "method", "phases", "ensemble")]
    names = ("task", "metric", "step_metric", "unit")
    texts += [values[name] for name in names if name in values]
    counts = [values[name] for name in ("seed", "epochs", "train_examples", "params")]
    tables = [values["test"]]
    tables += [values.get(f"test_{name}") or {} for name in ("best", "teacher")]
    tables.append(values.get("validation") or {})
    highest = 1.0 if values.get("unit", PERCENT) == PERCENT else float("inf")
    return (
        all(isinstance(text, str) for text in (*texts, values["teacher"] or ""))
        and all(type(count) is int for count in counts)
        and _is_number(values["seconds"])
        and all(_is_table(table, FIGURE, highest) for table in tables)
        and _is_table(values.get("fitted_weights") or {}, EXIT)
        and _is_table(values.get("exit_params") or {}, EXIT)
        and _is_table(values["macs"], MACS)
        and "ensemble" in values["macs"]
    )


def _is_table(table, names, highest=float("inf")):
    return isinstance(table, dict) and all(
        names.fullmatch(name) and _is_number(value) and value <= highest
        for name, value in table.items()
    )


def _is_number(value):
    return type(value) in (int, float) and value >= 0  # NaN is not
