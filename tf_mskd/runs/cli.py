"""What every command of the package does alike: flags in, one-line errors out."""

import io
import sys
import typing
from collections.abc import Callable

from absl import app, flags, logging

from tf_mskd.runs.config import Config
from tf_mskd.runs.flagfiles import expand
from tf_mskd.runs.flags import config_from, share_booleans
from tf_mskd.runs.inputs import check_names
from tf_mskd.training.stopping import Stopped, signals_stop
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.flag_errors import explain, listed


def run(main: Callable[[], None], define: Callable[[], None], doc: str) -> None:
    """Parses the flags, calls `main()` and exits; a user's mistake gets one line.

    Exit codes: 0 done, 1 unknown flag or bad flag value, 2 any other mistake of the
    user, 130 stopped by SIGINT, 143 stopped by SIGTERM.

    Args:
        main: function without arguments. It calls `start_tensorflow` and imports what
            needs TensorFlow itself, after the checks that need only flags and files.
        define: function without arguments that defines the command's flags.
        doc: str, what `--help` shows above the flags.
    """
    define()
    share_booleans()
    _show_any_text()
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
            fail(error, 2)
        except Stopped as stop:
            print(stop.text)
            raise

    app.run(guarded, flags_parser=_parse)


def _show_any_text():
    """Lets a terminal that lacks a letter of a path show its code instead."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def config() -> Config:
    """Returns the settings that the flags of a command give.

    Raises:
        UserError: for an unknown network or method, or settings that do not fit.
    """
    settings = config_from(flags.FLAGS)
    check_names(settings)
    return settings


def _parse(argv):
    try:
        return flags.FLAGS([argv[0], *expand(argv[1:])])
    except UserError as error:
        fail(error, 2)
    except flags.Error as error:
        fail(UserError(explain(error, flags.FLAGS)), 1)


def fail(error: Exception, code: int) -> typing.NoReturn:
    """Prints the one line of a user's mistake and exits with the code."""
    print(f"error: {error}", file=sys.stderr)
    sys.exit(code)


def _help():
    return [flags.FLAGS.module_help(group).strip() for group in listed(flags.FLAGS)]
