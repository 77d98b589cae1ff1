"""Does every run of a study: some flagfiles, each under some seeds.

    python tools/study.py --seeds=0,1,2 --study_dir=runs/study \\
        --flagfiles=configs/digits/student.flags,configs/digits/oto.flags

Run NAME_SEED is `python -m tf_mskd.train` with the flagfile NAME.flags, that seed and
the other flags given here. What several runs need, such as a teacher, is done first, by
itself. Then as many runs go side by side as there are cores, each on cores of its own,
and what a run prints goes to logs/NAME_SEED.txt. The same command goes on after a kill:
finished runs are kept, the others resume. A run that fails is told at the end.
"""

import contextlib
import dataclasses
import os
import pathlib
import subprocess
import sys
import time

import tqdm
from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from tf_mskd.runs import cli
from tf_mskd.runs import flags as run_flags  # noqa: E402
from tf_mskd.runs.config import Config  # noqa: E402
from tf_mskd.runs.plan import plan  # noqa: E402
from tf_mskd.utils import files  # noqa: E402
from tf_mskd.utils.cores import usable_cores  # noqa: E402
from tf_mskd.utils.errors import UserError  # noqa: E402
from tf_mskd.utils.lock import open_lock, take_lock  # noqa: E402
from tf_mskd.utils.run_paths import RunPaths  # noqa: E402

POLL = 0.5  # seconds between two looks at the runs
TRAIN = (sys.executable, "-m", "tf_mskd.train")
OURS = {"seed": "--seeds", "run_dir": "--study_dir"}  # of a run -> of the study


@dataclasses.dataclass
class Job:
    """A run of the study: its settings, the arguments of `train`, and its process."""

    name: str
    config: Config
    arguments: list[str]
    process: subprocess.Popen | None = None
    cores: tuple[int, ...] = ()

    @property
    def paths(self):
        """The files of the run's folder."""
        return RunPaths(self.config.run_dir)

    @property
    def finished(self):
        """Whether the run has ended well."""
        return self.paths.result.exists()

    @property
    def epochs(self):
        """How many epochs are done, int."""
        with contextlib.suppress(OSError):
            return self.paths.history.read_bytes().count(b"\n")
        return 0

    def is_free(self):
        """Whether no process holds the run, as one left by a killed study may."""
        if not self.paths.lock.exists():
            return True
        lock = open_lock(self.paths.lock)
        try:
            return take_lock(lock)
        finally:
            os.close(lock)


def define():
    """Defines the flags of the tool, and those of a run."""
    run_flags.define()
    flags.DEFINE_list("flagfiles", [], "Flagfiles of the runs; required.")
    flags.DEFINE_list("seeds", ["0"], "Seeds of each.")
    flags.DEFINE_string("study_dir", "", "Folder of the run folders; required.")
    flags.DEFINE_integer(
        "jobs", 0, "Runs side by side; 0: as many as cores.", lower_bound=0
    )


def jobs_of(paths, seeds, folder, arguments):
    """The runs of a study, seed by seed.

    Args:
        paths: list of str, flagfiles.
        seeds: list of str.
        folder: str, of the study.
        arguments: list of str, flags that win over the flagfiles'.

    Returns:
        list of `Job`.
    """
    if not paths or not folder:
        name = "study_dir" if paths else "flagfiles"
        raise UserError(f"--{name} is empty: it is required.")
    names = [pathlib.Path(path).stem for path in paths]
    for what, given in (("names of --flagfiles", names), ("--seeds", seeds)):
        twice = sorted({x for x in given if given.count(x) > 1})
        if twice or not given:
            raise UserError(f"The {what} must be different, got {','.join(given)}.")
    wrong = [seed for seed in seeds if not (seed.isascii() and seed.isdecimal())]
    if wrong:
        raise UserError(f"--seeds are whole numbers such as 0,1,2, got {wrong[0]!r}.")
    jobs = []
    for seed in seeds:
        for name, path in zip(names, paths, strict=True):
            own = [f"--seed={seed}", f"--run_dir={folder}/{name}_{seed}"]
            own = [f"--flagfile={path}", *arguments, *own]
            jobs.append(Job(f"{name}_{seed}", run_flags.read_flags(own), own))
    return jobs


def needed_first(jobs, folder):
    """The runs that the jobs' chains need and that are no jobs, as jobs, each once."""
    known, found = {os.path.abspath(job.config.run_dir) for job in jobs}, {}
    for job in jobs:
        for run in plan(job.config)[:-1]:
            path = os.path.abspath(run.run_dir)
            if run.status != "finished" and path not in known:
                flagfile = pathlib.Path(folder) / "logs" / f"{run.name}.flags"
                files.write_text(flagfile, run_flags.to_flagfile(run.config))
                found[path] = Job(run.name, run.config, [f"--flagfile={flagfile}"])
    return list(found.values())


def shares(count):
    """The cores of this process in so many shares, list of tuples of int.

    Example:
        >>> len(shares(1))
        1
    """
    cores = sorted(os.sched_getaffinity(0))
    return [tuple(cores[i::count]) or tuple(cores) for i in range(count)]


class Study:
    """Runs jobs side by side and shows one line of progress.

    Args:
        folder: str, of the study; logs go to its folder "logs".
        total: int, epochs of all runs.
        done: int, epochs done before.
    """

    def __init__(self, folder, total, done):
        self._logs, self.failed = pathlib.Path(folder) / "logs", []
        self._bar = tqdm.tqdm(
            total=total,
            initial=done,
            unit="epoch",
            desc="study",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )

    def run(self, jobs, count):
        """Does the jobs, `count` at a time; leaves none running, whatever happens."""
        before = sum(job.epochs for job in jobs)
        waiting, running = [job for job in jobs if not job.finished], []
        free = shares(min(count, len(waiting)) or 1)
        try:
            while waiting or running:
                while free and (job := next(filter(Job.is_free, waiting), None)):
                    waiting.remove(job)
                    running.append(job)
                    self._start(job, free.pop())
                time.sleep(POLL)
                for job in [j for j in running if j.process.poll() is not None]:
                    running.remove(job)
                    free.append(job.cores)
                    self._end(job)
                after = sum(job.epochs for job in jobs)
                self._bar.update(after - before)
                before = after
        finally:
            for job in running:
                job.process.terminate()  # they write a checkpoint
            for job in running:
                job.process.wait()
            self._bar.refresh()

    def close(self):
        """Leaves the line of progress."""
        self._bar.close()

    def _start(self, job, cores):
        job.cores = cores
        with open(self._logs / f"{job.name}.txt", "ab") as log:
            job.process = subprocess.Popen(
                [*TRAIN, *job.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # signals reach it once, from here
            )
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(job.process.pid, cores)

    def _end(self, job):
        if job.process.returncode:
            self.failed.append(job)
        log = self._logs / f"{job.name}.txt"
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next(filter(None, reversed(lines)), "it printed nothing")
        self._bar.write(f"{job.name}: {last}", file=sys.stdout)
        sys.stdout.flush()


def main():
    """Does the study."""
    values = flags.FLAGS
    folder = values.study_dir
    jobs = jobs_of(
        values.flagfiles, values.seeds, folder, run_flags.given_flags(values, OURS)
    )
    files.make_folder(pathlib.Path(folder) / "logs", "folder of logs")
    with locked(pathlib.Path(folder) / "study.lock"):
        first = needed_first(jobs, folder)
        every = [*first, *jobs]
        total = sum(job.config.epochs for job in every)
        study = Study(folder, total, sum(job.epochs for job in every))
        try:
            for job in first:
                study.run([job], 1)
                check(study.failed, folder)
            study.run(jobs, values.jobs or usable_cores())
        finally:
            study.close()
        check(study.failed, folder)
    folders = ",".join(job.config.run_dir for job in jobs)
    print(f"python -m tf_mskd.report --group_seeds --run_dirs={folders}")


@contextlib.contextmanager
def locked(path):
    """Holds the lock of a study."""
    lock = open_lock(path)
    try:
        if not take_lock(lock):
            raise UserError(
                f"Study {path.parent} is in use by another process: wait for it, or "
                "use another --study_dir."
            )
        yield
    finally:
        os.close(lock)


def check(failed, folder):
    """Refuses to go on after runs that failed."""
    if failed:
        names = ", ".join(job.name for job in failed)
        raise UserError(
            f"These runs failed: {names}. What they say is in {folder}/logs; the same "
            "command does what is left."
        )


if __name__ == "__main__":
    cli.run(main, define, __doc__)
