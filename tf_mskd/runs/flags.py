"""The absl flags of a run, made from the fields of `Config`, and flagfiles."""

import dataclasses
import os
import pathlib

from absl import flags

from tf_mskd.runs.config import Config
from tf_mskd.utils.errors import UserError

MOST_FLAGFILES = 100  # that one may include, each counted as often as it is read
MOST_BYTES = 2**20  # of one flagfile


def define(flag_values=flags.FLAGS):
    """Defines one flag per field of `Config`, grouped as `Config` groups them."""
    for field in dataclasses.fields(Config):
        meta, text = field.metadata, field.metadata["help"]
        if meta["choices"]:
            parser = flags.EnumParser(list(meta["choices"]))
        elif field.type is bool:
            parser = flags.BooleanParser()
        elif field.type in (int, float):
            kind = flags.IntegerParser if field.type is int else flags.FloatParser
            parser = kind(meta["low"], meta["high"])
        else:
            parser = flags.ArgumentParser()
        define_one = flags.DEFINE
        options = {"flag_values": flag_values, "module_name": f"{meta['group']} flags"}
        if field.type is bool:
            flags.DEFINE_boolean(field.name, field.default, text, **options)
        else:
            define_one(parser, field.name, field.default, text, **options)


def config_from(flag_values):
    """Returns the `Config` that parsed flags say.

    Raises:
        UserError: for values that do not fit together.
    """
    names = [field.name for field in dataclasses.fields(Config)]
    return Config(**{name: flag_values[name].value for name in names})


def read_flagfile(path, **overrides):
    """Reads a flagfile into a `Config`.

    Args:
        path: str or path of the flagfile; paths inside it are relative to the working
            directory.
        **overrides: settings that win over the file's.

    Returns:
        `Config`.

    Raises:
        UserError: if the file is missing, or holds an unknown flag or a bad value.
    """
    check_flagfile(path)
    values = flags.FlagValues()
    define(values)
    try:
        values(["tf_mskd", f"--flagfile={path}"])
    except flags.Error as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None
    return dataclasses.replace(config_from(values), **overrides)


def check_flagfile(path):
    """Looks through a flagfile and all that it includes before absl reads them.

    Args:
        path: str or path.

    Raises:
        UserError: if one is missing, is not text or too long, if one includes itself,
            or if they are too many.
    """
    seen = 0

    def visit(path, above):
        nonlocal seen
        seen += 1
        if path in above or seen > MOST_FLAGFILES:
            what = "itself" if path in above else f"more than {MOST_FLAGFILES} others"
            raise UserError(f"Flagfile {(*above, path)[0]!r} includes {what}.")
        for line in _lines(path):
            name, _, included = line.partition("=")
            if name in ("--flagfile", "-flagfile") and included.strip():
                visit(os.path.expanduser(included.strip()), (*above, path))

    visit(os.path.expanduser(str(path)), ())


def _lines(path):
    if not os.path.isfile(path):
        raise UserError(f"No flagfile {path!r} (looked from {pathlib.Path.cwd()}).")
    if os.path.getsize(path) > MOST_BYTES:
        raise UserError(f"Flagfile {path!r} is longer than {MOST_BYTES} bytes.")
    try:
        lines = pathlib.Path(path).read_text().split("\n")
    except OSError as error:
        raise UserError(f"Cannot read flagfile {path!r}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UserError(f"Flagfile {path!r} is not text.") from None
    for number, line in enumerate(lines, start=1):
        if not line.replace("\t", " ").isprintable():
            raise UserError(
                f"Line {number} of flagfile {path!r} holds a control character."
            )
    return lines


def to_flagfile(config):
    """Returns the text of a flagfile that reads back as `config`.

    Raises:
        UserError: if a setting cannot stand on one line.
    """
    settings = {
        f.name: _text(getattr(config, f.name)) for f in dataclasses.fields(Config)
    }
    for name, text in settings.items():
        if not text.isprintable():
            raise UserError(f"--{name} must be one line of plain text, got {text!r}.")
    lines = [f"--{name}={text}" for name, text in settings.items()]
    return "\n".join(lines) + "\n"


def _text(value):
    return str(value).lower() if isinstance(value, bool) else str(value)
