"""A finished run, opened to measure its student again."""

import dataclasses
import functools

from tf_mskd.data.arrays import Source
from tf_mskd.data.summary import describe
from tf_mskd.models.saving import load_model
from tf_mskd.runs.data import Data, load
from tf_mskd.runs.flags import read_flagfile
from tf_mskd.runs.inputs import check_finished_run
from tf_mskd.runs.networks import import_layers
from tf_mskd.runs.task import build_task
from tf_mskd.tasks import Task
from tf_mskd.training.evaluation import Evaluator
from tf_mskd.training.strategies import create_strategy
from tf_mskd.utils.run_paths import RunPaths


class FinishedRun:
    """The folder, configuration and student of a finished run.

    Args:
        run_dir: str or path of the run folder.
        data_dir: str, folder of the prepared data instead of the run's own.

    Raises:
        UserError: if the folder holds no finished run.
    """

    def __init__(self, run_dir, data_dir=""):
        check_finished_run(run_dir)
        self.paths = RunPaths(run_dir)
        config = read_flagfile(self.paths.flags)
        data_dir = data_dir or config.data_dir
        self.config = dataclasses.replace(config, data_dir=data_dir)
        self._strategy = create_strategy("auto")

    @property
    def task(self) -> Task:
        """The task of the run."""
        return build_task(self.config)

    @functools.cached_property
    def source(self) -> Source:
        """The data of the run; a line says what was read, when it is.

        Raises:
            UserError: if they are missing.
        """
        source = load(self.config)
        print(describe(source), flush=True)
        return source

    def student(self, which="last"):
        """Loads the student of the last epoch, or "best" by the validation split."""
        paths = {"last": self.paths.student, "best": self.paths.student_best}
        import_layers(str(self.paths.folder))
        with self._strategy.scope():
            return load_model(paths[which])

    def logits(self, student, held_out=0):
        """Returns the logits of all exits, and the labels, on the test split.

        Args:
            student: model of `student`.
            held_out: int; above 0 instead at most so many training images that the run
                did not learn from, see `Data.held_out_stream`.

        Returns:
            (dict, exit name -> float32 array [N, classes]; int array [N]).

        Raises:
            UserError: if the data are missing.
        """
        if not held_out:
            return self.test().logits(student)
        stream = Data(self.config, source=self.source).held_out_stream(held_out)
        return Evaluator(self._strategy, stream).logits(student)

    def test(self):
        """Returns the `Evaluator` of the test split.

        Raises:
            UserError: if the data are missing.
        """
        data = Data(self.config, source=self.source)
        return Evaluator(self._strategy, data.test_stream(), data.gallery_stream())
