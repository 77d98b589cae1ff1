"""The folder of a run: what it holds, and whether it belongs to this configuration."""

import contextlib
import json
import os
import pathlib
import platform
import re
import socket
import subprocess
import sys
from importlib import metadata

from tf_mskd.runs.flags import to_flagfile
from tf_mskd.runs.inputs import check_same_run
from tf_mskd.runs.result import read_result, write_result
from tf_mskd.training.checkpoint import CheckpointManager
from tf_mskd.training.strategies import is_chief
from tf_mskd.utils import files
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.lock import open_lock, take_lock
from tf_mskd.utils.run_paths import RunPaths
from tf_mskd.utils.version import VERSION

PACKAGES = ("tensorflow", "keras", "tensorflow-datasets", "numpy", "jax")
OWNER = re.compile(r"host [\w.-]{1,255}, pid \d{1,20}")


class RunFolder:
    """The folder of `config`; entering it makes it, or checks that it is the same run.

    flags.txt       the resolved flags, readable with --flagfile
    run.json        versions, commit, command
    metrics.jsonl   one JSON object per epoch
    checkpoints/    the newest two
    tensorboard/    logs
    student.keras   the trained student alone (student_best.keras: best by validation)
    views.png       the views of an image, of a method that makes several
    result.json     accuracies, parameters, MACs, seconds; its presence means finished

    It is a context manager, locked for this process meanwhile; the system drops the
    lock of a process that dies.

    Args:
        config: `Config` with `run_dir`.

    Raises:
        UserError: if the folder is another run's (the differing flags are named),
            cannot be written, or is in use by another process.
    """

    def __init__(self, config):
        if not config.run_dir:
            raise UserError("--run_dir is empty: say which folder the run shall use.")
        self.paths = paths = RunPaths(config.run_dir)
        self.path = paths.folder
        self.is_chief = is_chief(config.strategy)
        self.tensorboard, self.student = paths.tensorboard, paths.student
        self.trained_teacher = paths.trained_teacher
        self.student_best = paths.student_best
        self._config, self._lock = config, None

    def __enter__(self):
        """Locks the folder, then looks at it; the lock file tells who holds it."""
        self._make()
        try:
            if self.is_chief:
                self._take_lock()
                files.remove_temporary(self.path)
            self._check_flags()
            folder = self.paths.checkpoints
            self.checkpoints = CheckpointManager(folder, read_only=not self.is_chief)
            if self.is_chief:
                files.remove_temporary(folder)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        """Gives the lock back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _check_flags(self):
        flagfile, record = self.paths.flags, self.paths.record
        check_same_run(self._config)
        if self.is_chief and not flagfile.exists():
            files.write_text(flagfile, to_flagfile(self._config))
        if self.is_chief and not record.exists():  # also after a kill between the two
            files.write_json(record, _provenance())

    def _make(self):
        files.make_folder(self.path, "run folder")
        probe = self.path / f".writable.{os.getpid()}.txt"
        try:
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"Cannot write to run folder {self.path}: {error.strerror}. Choose "
                "another --run_dir or mend its permissions."
            ) from None

    def _take_lock(self):
        path = self.paths.lock
        try:
            self._lock = open_lock(path)
            if take_lock(self._lock):
                os.ftruncate(self._lock, 0)
                os.write(self._lock, f"host {_host()}, pid {os.getpid()}".encode())
                return
        except OSError as error:
            raise UserError(f"Cannot lock {path}: {error.strerror}.") from None
        owner = os.pread(self._lock, 300, 0).decode(errors="replace")
        owner = owner if OWNER.fullmatch(owner) else "another process"
        raise UserError(
            f"Run folder {self.path} is in use by {owner}: wait for it, or use "
            "another --run_dir."
        )

    def check_fingerprint(self, role, path, value):
        """Remembers the network this run started with; refuses another one later.

        Args:
            role: str, "teacher", "init", "model" or "weights file".
            path: path it was read from, for the message.
            value: str, `saving.fingerprint` of it.
        """
        if not self.is_chief:
            return
        record = files.read_json(self.paths.record)
        known = record.get("fingerprints", {}) if isinstance(record, dict) else None
        if not isinstance(known, dict) or not isinstance(known.get(role, ""), str):
            raise UserError(
                f"{self.paths.record} is damaged: the fingerprint of the {role} "
                "cannot be read from it. Bring it back, or use another --run_dir."
            )
        if known.get(role, value) != value:
            raise UserError(
                f"The {role} at {path} is not the one that {self.path} was started "
                f"with ({value[:12]} instead of {known[role][:12]}): bring it back, or "
                "use another --run_dir."
            )
        if role not in known:
            record["fingerprints"] = {**known, role: value}
            files.write_json(self.paths.record, record)

    def result(self):
        """Returns the `Result` of the run, or None while it is unfinished."""
        path = self.paths.result
        return read_result(path) if path.exists() else None

    def write_result(self, result):
        """Writes result.json, which marks the run as finished."""
        if not self.is_chief:
            return
        write_result(self.paths.result, result)

    def write_history(self, history):
        """Replaces metrics.jsonl by these epochs, so no line is missing or double."""
        if not self.is_chief:
            return
        lines = [json.dumps(epoch) + "\n" for epoch in history]
        files.write_text(self.paths.history, "".join(lines))


def _host():
    return re.sub(r"[^\w.-]", "?", socket.gethostname())


def _provenance():
    versions = {"tf_mskd": VERSION, "python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "command": [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": versions,
        "commit": _commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def _commit():
    root = pathlib.Path(__file__).parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
