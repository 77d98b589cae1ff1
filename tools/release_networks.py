"""What the card of a release tells of its networks: shapes, classes, what they are."""

import dataclasses
import pathlib

from tf_mskd.models import exit_names, sub_model
from tf_mskd.models.saving import fingerprint
from tf_mskd.runs.comparison import ComparedRun, read_runs
from tf_mskd.runs.config import Config
from tf_mskd.runs.finished_run import FinishedRun
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.private import all_layers
from tools.release_runs import Run


@dataclasses.dataclass(frozen=True)
class Network:
    """The network of a run in a release.

    Args:
        run: result, with the parameters of each exit, and logs.
        config: its settings.
        record: its run.json.
        image: height, width and channels of its images; None where any will do.
        outputs: values of an exit for an image, or for each position of it.
        exits: names, shallow to deep.
        fingerprint: `saving.fingerprint` of it.
        packages: those that its layers come from.
    """

    run: ComparedRun
    config: Config
    record: dict
    image: tuple[int | None, ...]
    outputs: int
    exits: list[str]
    fingerprint: str
    packages: set[str]

    def fingerprint_of(self, role: str) -> str:
        """Returns the fingerprint of its "teacher" or "init"; "" where it had none."""
        return self.record.get("fingerprints", {}).get(role, "")


def read_networks(folder: pathlib.Path, runs: list[Run]) -> dict[str, Network]:
    """Reads the networks of a release, in Keras' safe mode.

    Args:
        folder: path of the release.
        runs: what is in it.

    Returns:
        dict, name of a run -> `Network`.

    Raises:
        UserError: if one cannot be read.
    """
    found = {}
    for run in runs:
        finished = FinishedRun(folder / run.name)
        student = finished.student()
        exits = exit_names(student)
        modules = {type(layer).__module__ for layer in all_layers(student)}
        (compared,) = read_runs([folder / run.name]).values()
        alone = {name: sub_model(student, name).count_params() for name in exits}
        result = dataclasses.replace(compared.result, exit_params=alone)
        found[run.name] = Network(
            dataclasses.replace(compared, result=result),
            finished.config,
            run.record,
            tuple(student.inputs[0].shape[1:]),
            student.output[exits[-1]].shape[-1],
            exits,
            fingerprint(student),
            {module.split(".")[0] for module in modules},
        )
    return found


def class_names(runs: list[Run]) -> dict[str, tuple[str, ...]]:
    """Reads the classes of each data set, in the order of the outputs.

    Args:
        runs: as they lie here, with their data.

    Returns:
        dict, data set -> names, of those whose outputs are classes; () where the data
        are not here, which a line tells.
    """
    found: dict[str, tuple[str, ...]] = {}
    for run in runs:
        finished = FinishedRun(run.paths.folder)
        has_classes = finished.task.probabilities and not finished.task.searches
        if run.config.dataset in found or not has_classes:
            continue
        try:
            found[run.config.dataset] = finished.source.class_names
        except UserError as error:
            print(f"The card will name no classes: {error}")
            found[run.config.dataset] = ()
    return found
