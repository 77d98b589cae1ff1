"""Multiple-stage knowledge distillation for Keras: all commands behind one name.

    tf-mskd train --flagfile=configs/digits/mskd.flags --run_dir=runs/mskd

`python -m tf_mskd train ...` and `python -m tf_mskd.train ...` are the same.
"""

import importlib
import sys

from tf_mskd.runs import cli
from tf_mskd.utils.errors import UserError, nearest

COMMANDS = {
    "prepare": "Prepare a data set, once.",
    "train": "Train a network.",
    "cache": "Store a teacher's outputs ahead of the runs that use them.",
    "evaluate": "Measure a finished run.",
    "calibrate": "Fit when examples exit early.",
    "explain": "Draw where the exits of a run look.",
    "export": "Write a student as SavedModel and TFLite files.",
    "report": "Compare finished runs.",
    "tune": "Search the settings of a run.",
}


def main() -> None:
    """Runs the command that the first argument names with the arguments after it."""
    name = sys.argv[1] if sys.argv[1:] else "--help"
    if name in ("--help", "-help", "-h"):
        lines = [f"  {command:10} {text}" for command, text in COMMANDS.items()]
        print(__doc__.strip(), "\n".join(lines), sep="\n\n")
        print("\nThe flags of a command: tf-mskd COMMAND --help")
        return
    if name not in COMMANDS:
        cli.fail(
            UserError(
                f"Unknown command {name!r}{nearest(name, COMMANDS)} Known: "
                f"{', '.join(COMMANDS)}."
            ),
            1,
        )
    sys.argv = [f"tf-mskd {name}", *sys.argv[2:]]
    if name == "prepare":
        sys.exit(importlib.import_module("tf_mskd.data.prepare").main())
    command = importlib.import_module(f"tf_mskd.{name}")
    cli.run(command.main, command.define, command.__doc__ or "")


if __name__ == "__main__":
    main()
