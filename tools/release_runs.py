"""A finished run as others get it: its files, without the paths of the machine."""

import dataclasses
import os
import pathlib
import re
import shutil

from tf_mskd.runs import own_model
from tf_mskd.runs.config import Config
from tf_mskd.runs.flagfiles import PACKAGE, SHIPPED
from tf_mskd.runs.flags import read_flagfile, to_flagfile
from tf_mskd.runs.result import Result, read_result, write_result
from tf_mskd.runs.stages import required_name
from tf_mskd.utils import files
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.run_paths import RunPaths

NAME = re.compile(r"\w[\w.-]*")
FLAG = re.compile(r"--?[a-z]\w*")
RECORDED = ("versions", "commit", "machine", "fingerprints")
ABSOLUTE = re.compile(r"(?:^|(?<=[\s\"'=:,;?&(]))(?:~?/[\w.-]+/|~/|[A-Za-z]:\\)\S*")


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run of this format."""

    paths: RunPaths
    config: Config
    result: Result
    record: dict

    @property
    def name(self) -> str:
        """The name of its folder, here and in the release."""
        return _name(self.paths.folder)


def open_runs(folders: list[pathlib.Path]) -> list[Run]:
    """Reads runs.

    Args:
        folders: of `comparison.find_runs`.

    Raises:
        UserError: if a file is missing or damaged, a run has another format, or two
            runs have one name.
    """
    names = [_name(folder) for folder in folders]
    for place, name in enumerate(names):
        if not NAME.fullmatch(name):
            raise UserError(
                f"The run folder {name!r} must be named by letters, digits, '.', '_' "
                "and '-' to be released: rename it."
            )
        if name in names[:place]:
            raise UserError(
                f"{folders[names.index(name)]} and {folders[place]} would both be "
                f"{name} in the release: rename one of them, or leave it out."
            )
    return [_open(RunPaths(folder)) for folder in folders]


def _name(folder):
    return pathlib.Path(os.path.abspath(folder)).name


def _open(paths):
    result = read_result(paths.result)
    files.model_file(paths.folder)
    record = files.read_json(paths.record)
    known = record if isinstance(record, dict) else {}
    tables = [known.get(name, {}) for name in ("versions", "fingerprints")]
    command = isinstance(known.get("command"), list) and known["command"]
    if not command or not all(isinstance(table, dict) for table in tables):
        raise UserError(
            f"{paths.record} is damaged: it holds no command, versions, fingerprints."
        )
    return Run(paths, read_flagfile(str(paths.flags)), result, record)


def write_run(run: Run, released: dict[str, str], folder: pathlib.Path) -> None:
    """Writes the folder of a run.

    Args:
        run: the run.
        released: real path of each released run's folder -> its name.
        folder: path of the new folder.
    """
    to, config = RunPaths(folder), portable(run.config, run.name, released)
    folder.mkdir()
    files.write_text(to.flags, to_flagfile(config))
    files.write_json(to.record, portable_record(run.record))
    write_result(to.result, dataclasses.replace(run.result, model=config.model))
    shutil.copyfile(run.paths.student, to.student)
    shutil.copyfile(run.paths.history, to.history)


def portable(config: Config, name: str, released: dict[str, str]) -> Config:
    """Returns the settings of a run without the paths of the machine.

    Folders of runs in the release are named as they are there; others, and the data,
    are left out. Files keep their names; flagfiles of the package their paths in it.

    Args:
        config: of the run.
        name: its name in the release.
        released: real path of each released run's folder -> its name.

    Example:
        >>> config = Config(run_dir="/a/kd", teacher="/a/t", data_dir="/data")
        >>> config = portable(config, "kd", {"/a/t": "teacher"})
        >>> config.run_dir, config.teacher, config.data_dir
        ('kd', 'teacher', '')
    """
    named = [name for name in vars(config) if name.endswith("_flagfile")]
    flagfiles = {n: _flagfile(getattr(config, n)) for n in (*named, "stage_dir")}
    teacher = _teacher(config.teacher, released)
    lost = config.teacher and not teacher
    cache = config.teacher_cache and f"teacher_cache/{_name(config.teacher_cache)}"
    moved = dataclasses.replace(
        config,
        run_dir=name,
        data_dir="",
        model=_network("model", config.model),
        teacher=teacher,
        teacher_size=0 if lost else config.teacher_size,
        teacher_cache=cache,
        **flagfiles,
    )
    first = {f"{r}_run_dir": _beside(config, r, released) for r in ("teacher", "init")}
    return dataclasses.replace(moved, **first)


def _beside(config, role, released):
    """The folder of a run that was done first; "" where it is found by its name."""
    given = getattr(config, f"{role}_run_dir")
    name = released.get(os.path.realpath(given), "") if given else ""
    return "" if name and name == required_name(config, role) else name


def _teacher(text, released):
    if own_model.kind_of(text) in ("keras", "function", "published"):
        return _network("teacher", text)
    path = pathlib.Path(os.path.realpath(text))
    if text and path.name == RunPaths("").student.name:
        name = released.get(str(path.parent), "")
        return f"{name}/{path.name}" if name else ""
    return released.get(str(path), "") if text else ""


def _network(flag, text):
    """A --model or --teacher with the name of its file instead of the path."""
    path = own_model.file_of(flag, text)
    return text.replace(path, pathlib.Path(path).name) if path else text


def _flagfile(text):
    """The path in the package, or as it is where it leads down, or the name alone."""
    parts = pathlib.Path(text).parts
    for place in range(len(parts)):
        path = pathlib.Path(*parts[place:])
        found = any((root / path).exists() for root in (PACKAGE, PACKAGE.parent))
        if path.parts[:1] in SHIPPED and found:
            return path.as_posix()
    leads_out = os.path.isabs(text) or {"..", "~"} & set(parts)
    return parts[-1] if leads_out else text


def portable_record(record: dict) -> dict:
    """Returns run.json with the names alone of the flags in the command.

    Example:
        >>> portable_record({"command": ["/a/train.py", "--lr=0.1", "--l2", "/b"]})
        {'command': ['train.py', '--lr', '--l2']}
    """
    module, *given = map(str, record["command"])
    flags = [found[0] for part in given if (found := FLAG.match(part))]
    kept = {key: record[key] for key in RECORDED if key in record}
    return {"command": [pathlib.Path(module).name, *flags], **kept}


def check_text(folder: pathlib.Path) -> None:
    """Raises `UserError` if a text in a release holds an absolute path."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".txt", ".json", ".jsonl", ".md"):
            found = ABSOLUTE.search(path.read_text(encoding="utf-8"))
            if found:
                raise UserError(
                    f"{path.relative_to(folder)} would hold a path of this machine, "
                    f"{found[0]!r}: take it out of the run's flags or of the text "
                    "given here."
                )
