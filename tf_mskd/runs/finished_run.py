"""A finished run, opened to measure its student again."""

import dataclasses
import functools

import keras

from tf_mskd.data.arrays import Source
from tf_mskd.data.summary import describe
from tf_mskd.models.plain import as_teacher
from tf_mskd.models.saving import fingerprint, load_model
from tf_mskd.runs.build import teacher_source
from tf_mskd.runs.data import Data
from tf_mskd.runs.flags import read_flagfile
from tf_mskd.runs.inputs import check_finished_run
from tf_mskd.runs.networks import import_layers, load_network
from tf_mskd.runs.plan import required_folder
from tf_mskd.runs.source import load
from tf_mskd.runs.task import build_task
from tf_mskd.tasks import Task
from tf_mskd.training.evaluation import Evaluator
from tf_mskd.training.strategies import create_strategy
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.files import read_json
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

    def teacher(self, student: keras.Model) -> keras.Model | None:
        """Loads the teacher of the run as its student's images meet it.

        Args:
            student: model of `student`.

        Returns:
            functional model with a dict of exits; None where the run had none.

        Raises:
            UserError: if it is not there any more, or is another one now.
        """
        learned = self.paths.trained_teacher
        path = str(learned) if learned.is_file() else self.teacher_path()
        if not path:
            return None
        seen = teacher_source(self.config, self.source)
        with self._strategy.scope():
            teacher = load_network(path, seen, self.task)
        if not learned.is_file():
            self._check_teacher(path, teacher)
        size = self.config.teacher_size or None
        return as_teacher(teacher, student, self.task, size)

    def teacher_path(self) -> str:
        """Path of the run folder or the model that the student learned from, or ""."""
        config = dataclasses.replace(self.config, run_dir=str(self.paths.folder))
        by_flagfile = config.teacher_flagfile and not config.untrained_teacher
        return required_folder(config, "teacher") if by_flagfile else config.teacher

    def _check_teacher(self, path, teacher):
        known = read_json(self.paths.record).get("fingerprints", {}).get("teacher")
        if known != fingerprint(teacher):
            raise UserError(
                f"The teacher at {path} is not the one that {self.paths.folder} was "
                "trained with."
            )

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

    def validation(self) -> Evaluator | None:
        """Returns the `Evaluator` of the validation split, None where there is none.

        Raises:
            UserError: if the data are missing.
        """
        stream = Data(self.config, source=self.source).validation_stream()
        return None if stream is None else Evaluator(self._strategy, stream)
