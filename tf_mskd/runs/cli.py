"""What every command of the package does alike: flags in, one-line errors out."""

import os
import sys

from absl import app, flags, logging

from tf_mskd.runs.config import GROUPS
from tf_mskd.runs.flags import check_flagfile
from tf_mskd.training.stopping import Stopped, signals_stop
from tf_mskd.utils.errors import UserError


def run(main, doc):
    """Parses the flags, calls `main()` and exits; a user's mistake gets one line.

    Exit codes: 0 done, 1 unknown flag or bad flag value, 2 any other mistake of the
    user, 130 stopped by SIGINT, 143 stopped by SIGTERM.

    Args:
        main: function without arguments.
        doc: str, what `--help` shows above the flags.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if {"--help", "-help", "-h"} & set(sys.argv[1:]):
        print(doc.strip(), *_help(), sep="\n\n")
        return

    logging.set_verbosity(logging.WARNING)  # TFDS tells every step at INFO

    def guarded(argv):
        try:
            if argv[1:]:
                raise UserError(
                    f"Expected flags only, got {argv[1]!r}: write --name=value."
                )
            with signals_stop():
                main()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except Stopped as stop:
            print(stop.text)
            raise

    app.run(guarded, flags_parser=_parse)


def _parse(argv):
    try:
        for argument, following in zip(argv, [*argv[1:], ""], strict=True):
            name, equals, path = argument.partition("=")
            if name in ("--flagfile", "-flagfile"):
                check_flagfile(path if equals else following)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    return app.parse_flags_with_usage(argv)


def _help():
    values = flags.FLAGS
    known = [f"{name} flags" for name in GROUPS] + [sys.argv[0]]
    modules = [m for m in values.flags_by_module_dict() if m in known]
    return [values.module_help(module).strip() for module in modules]
