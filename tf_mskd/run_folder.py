"""The folder of a run: what it holds, and whether it belongs to this configuration."""

import fcntl
import json
import os
import pathlib
import platform
import socket
import subprocess
import sys
from importlib import metadata

import tf_mskd
from tf_mskd import files
from tf_mskd.checkpoint import States
from tf_mskd.config import differing
from tf_mskd.distribution import is_chief
from tf_mskd.errors import UserError
from tf_mskd.flags import read_flagfile, to_flagfile

PACKAGES = ("tensorflow", "keras", "tensorflow-datasets", "numpy")


class RunFolder:
    """Opens the folder of `config`, making it or checking that it is the same run.

    flags.txt       the resolved flags, readable with --flagfile
    run.json        versions, commit, command
    metrics.jsonl   one JSON object per epoch
    checkpoints/    the newest two states
    tensorboard/    logs
    student.keras   the trained student alone (student_best.keras: best by validation)
    result.json     accuracies, parameters, MACs, seconds; its presence means finished

    Used as a context manager, it is locked for this process meanwhile; the system drops
    the lock of a process that dies.

    Args:
        config: `Config` with `run_dir`.

    Raises:
        UserError: if the folder is another run's (the differing flags are named),
            cannot be written, or is in use by another process.
    """

    def __init__(self, config):
        if not config.run_dir:
            raise UserError("--run_dir is empty: say which folder the run shall use.")
        self.path = pathlib.Path(config.run_dir)
        self.is_chief = is_chief(config.strategy)
        self._make()
        flagfile = self.path / "flags.txt"
        if flagfile.exists():
            differences = differing(read_flagfile(flagfile), config)
            if differences:
                raise UserError(
                    f"{self.path} holds a run with other flags: "
                    f"{'; '.join(differences)}. Use these flags or another --run_dir."
                )
        elif self.is_chief:
            files.write_text(flagfile, to_flagfile(config))
            files.write_json(self.path / "run.json", _provenance())
        self.states = States(self.path / "checkpoints", read_only=not self.is_chief)
        self.tensorboard = self.path / "tensorboard"
        self.student = self.path / "student.keras"
        self.trained_teacher = self.path / "teacher.keras"
        self.student_best = self.path / "student_best.keras"

    def _make(self):
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"Cannot make run folder {self.path}: {error.strerror}."
            ) from None
        probe = self.path / f".writable.{os.getpid()}"
        try:
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"Cannot write to run folder {self.path}: {error.strerror}. Choose "
                "another --run_dir or mend its permissions."
            ) from None

    def __enter__(self):
        """Locks the folder; the lock file tells who holds it."""
        if not self.is_chief:
            return self
        self._lock = open(self.path / "lock", "a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.seek(0)
            owner = self._lock.read().strip() or "another process"
            self._lock.close()
            raise UserError(
                f"Run folder {self.path} is in use by {owner}: wait for it, or use "
                "another --run_dir."
            ) from None
        self._lock.truncate(0)
        self._lock.write(f"host {socket.gethostname()}, pid {os.getpid()}")
        self._lock.flush()
        return self

    def __exit__(self, *_):
        """Gives the lock back."""
        if self.is_chief:
            self._lock.close()

    def check_fingerprint(self, role, path, value):
        """Remembers the network this run started with; refuses another one later.

        Args:
            role: str, "teacher" or "init".
            path: path it was read from, for the message.
            value: str, `saving.fingerprint` of it.
        """
        if not self.is_chief:
            return
        record = files.read_json(self.path / "run.json")
        known = record.setdefault("fingerprints", {}).setdefault(role, value)
        if known != value:
            raise UserError(
                f"The {role} at {path} is not the one that {self.path} was started "
                f"with ({value[:12]} instead of {known[:12]}): bring it back, or use "
                "another --run_dir."
            )
        files.write_json(self.path / "run.json", record)

    def result(self):
        """Returns the content of result.json, or None while the run is unfinished."""
        path = self.path / "result.json"
        return files.read_json(path) if path.exists() else None

    def write_result(self, result):
        """Writes result.json, which marks the run as finished."""
        if not self.is_chief:
            return
        files.write_json(self.path / "result.json", result)

    def write_history(self, history):
        """Replaces metrics.jsonl by these epochs, so no line is missing or double."""
        if not self.is_chief:
            return
        lines = [json.dumps(epoch) + "\n" for epoch in history]
        files.write_text(self.path / "metrics.jsonl", "".join(lines))


def _provenance():
    versions = {"tf_mskd": tf_mskd.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        versions[name] = metadata.version(name)
    return {
        "command": [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": versions,
        "commit": _commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def _commit():
    root = pathlib.Path(tf_mskd.__file__).parents[1]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
