"""Packs finished runs for others: weights, figures, settings and a card.

    python tools/release.py --run_dirs=runs/teacher,runs/oto --output=release/small \\
        --title="Small networks of CIFAR-100" --licence=apache-2.0
    python tools/release.py --check=release/small

Each run becomes a folder that the library reads as it reads a run: student.keras,
result.json, metrics.jsonl, flags.txt and run.json, without the paths of this machine.
README.md is the card, with what model hubs read at its head; SHA256SUMS is for
`sha256sum -c`, and --check names what is changed, missing or additional. --zip also
writes one archive, --push uploads the folder to the Hugging Face Hub. All is written or
nothing.
"""

import importlib
import os
import pathlib
import re
import shutil
import sys

from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from tf_mskd.runs import cli
from tf_mskd.runs.comparison import find_runs  # noqa: E402
from tf_mskd.runs.flagfiles import is_line  # noqa: E402
from tf_mskd.utils import files  # noqa: E402
from tf_mskd.utils.errors import UserError  # noqa: E402
from tf_mskd.utils.start import start_tensorflow  # noqa: E402
from tools import release_files, release_runs  # noqa: E402

LICENCE = re.compile(r"[A-Za-z][A-Za-z0-9.+-]*")  # an SPDX identifier
REPO = re.compile(r"[\w.-]+/[\w.-]+")
TEXTS = ("title", "data_note")


def define():
    """Defines the flags of the tool."""
    flags.DEFINE_string(
        "run_dirs", "", "Folders of finished runs, or of folders of them; required."
    )
    flags.DEFINE_string("output", "", "Folder of the release, new or empty; required.")
    flags.DEFINE_string(
        "title", "", "Title of the card; empty: the name of the folder."
    )
    flags.DEFINE_string(
        "licence",
        "",
        "Licence of the weights, an SPDX identifier such as apache-2.0, mit, cc-by-4.0 "
        "or LicenseRef-own; required.",
    )
    flags.DEFINE_string("data_note", "", "Sentence on the licence of the data.")
    flags.DEFINE_boolean("zip", False, "Also write the folder as one archive.")
    flags.DEFINE_string("push", "", "Upload to this USER/REPO of the Hugging Face Hub.")
    flags.DEFINE_string("check", "", "Compare this release with its SHA256SUMS.")


def main():
    """Packs, or checks."""
    values = flags.FLAGS
    if values.check:
        _check_alone(values)
        count = release_files.check(values.check)
        print(f"{values.check}: all {count} files are as they were released.")
        return
    _check(values)
    hub = _hub() if values.push else None
    runs = release_runs.open_runs(find_runs(files.split_paths(values.run_dirs)))
    start_tensorflow()
    output = pathlib.Path(os.path.abspath(values.output))
    title = values.title or output.name
    pack(runs, output, title, values.licence, values.data_note, values.zip)
    print(f"wrote {output}" + f" and {output}.zip" * values.zip)
    if hub:
        push(hub, output, values.push)
        print(f"uploaded it to {values.push}")


def pack(runs, output, title, licence, data_note="", archive=False):
    """Writes a release, all of it or nothing.

    Args:
        runs: of `release_runs.open_runs`.
        output: path of its folder, new or empty.
        title: of the card.
        licence: of the weights.
        data_note: on the licence of the data; "" for a general sentence.
        archive: whether to write OUTPUT.zip too.

    Raises:
        UserError: if a network cannot be read, a text would hold an absolute path, or
            something cannot be written.
    """
    from tools import release_card, release_networks

    files.make_folder(output.parent)
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    released = {os.path.realpath(run.paths.folder): run.name for run in runs}
    try:
        files.make_folder(temporary)
        for run in runs:
            release_runs.write_run(run, released, temporary / run.name)
        networks = release_networks.read_networks(temporary, runs)
        classes = release_networks.class_names(runs)
        text = release_card.card(networks, classes, title, licence, data_note)
        files.write_text(temporary / "README.md", text)
        release_runs.check_text(temporary)
        release_files.write_sums(temporary)
        if archive:
            release_files.write_zip(temporary, output.name, _archive(temporary))
        os.replace(temporary, output)
        if archive:
            os.replace(_archive(temporary), _archive(output))
    except OSError as error:
        raise UserError(f"Cannot write {output}: {error.strerror or error}.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _archive(temporary).unlink(missing_ok=True)


def push(hub, folder, repo):
    """Uploads a release.

    Args:
        hub: the module huggingface_hub.
        folder: path of the release.
        repo: "USER/REPO", made unless it is there.

    Raises:
        UserError: if that fails.
    """
    try:
        hub.create_repo(repo, exist_ok=True)
        hub.upload_folder(repo_id=repo, folder_path=str(folder))
    except Exception as error:  # of the network, of the account, of their library
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{folder} is written, but was not uploaded to {repo}: {reason}"
        ) from error


def _check(values):
    for flag in ("run_dirs", "output"):
        if not getattr(values, flag):
            raise UserError(f"--{flag} is empty: name {_MISSING[flag]}.")
    if not LICENCE.fullmatch(values.licence):
        raise UserError(
            f"--licence={values.licence} is no licence of the weights: give an SPDX "
            "identifier, such as apache-2.0, mit, cc-by-4.0 or LicenseRef-own."
        )
    for flag in TEXTS:
        if not is_line(getattr(values, flag)):
            raise UserError(f"--{flag} must be one line of plain text.")
    if values.push and not REPO.fullmatch(values.push):
        raise UserError(f"--push={values.push} is no USER/REPO: name both.")
    output = pathlib.Path(os.path.abspath(values.output))
    used = [] if _is_empty(output) else [output]
    used += [_archive(output)] if values.zip else []
    for path in filter(os.path.lexists, used):
        raise UserError(f"{path} is there already: remove it, or name another one.")


def _is_empty(folder):
    return folder.is_dir() and not any(folder.iterdir())


def _archive(output):
    return output.with_name(f"{output.name}.zip")


def _check_alone(values):
    others = (*_MISSING, *TEXTS, "licence", "zip", "push")
    if given := [name for name in others if getattr(values, name)]:
        raise UserError(f"--check only compares: leave out --{', --'.join(given)}.")


def _hub():
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise UserError(
            "--push needs huggingface_hub, which is not installed: python -m pip "
            "install huggingface_hub."
        ) from None


_MISSING = {"run_dirs": "folders of finished runs", "output": "the folder to write"}

if __name__ == "__main__":
    cli.run(main, define, __doc__)
