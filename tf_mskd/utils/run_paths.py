"""The file names of a run folder, once; a run and all that reads it later use them."""

import os
import pathlib


class RunPaths:
    """Paths of the files of a run folder, whether they exist or not.

    Args:
        folder: path of the run folder.

    Example:
        >>> RunPaths("runs/mskd").student.as_posix()
        'runs/mskd/student.keras'
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = pathlib.Path(folder)
        self.flags = self.folder / "flags.txt"
        self.record = self.folder / "run.json"
        self.lock = self.folder / "lock"
        self.history = self.folder / "metrics.jsonl"
        self.checkpoints = self.folder / "checkpoints"
        self.tensorboard = self.folder / "tensorboard"
        self.data_index = self.folder / "data_index"
        self.student = self.folder / "student.keras"
        self.student_best = self.folder / "student_best.keras"
        self.trained_teacher = self.folder / "teacher.keras"
        self.views = self.folder / "views.png"
        self.result = self.folder / "result.json"
        self.examples = self.folder / "examples.png"
        self.explanation = self.folder / "explain.png"
        self.exits = self.folder / "exits.json"
        self.early_exit = self.folder / "early_exit.json"
        self.early_exit_plot = self.folder / "early_exit.png"
        self.subsets = self.folder / "subsets.json"
        self.subsets_plot = self.folder / "subsets.png"
