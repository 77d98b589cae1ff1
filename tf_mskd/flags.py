"""The absl flags of a run, made from the fields of `Config`, and flagfiles."""

import dataclasses
import pathlib

from absl import flags

from tf_mskd.config import Config
from tf_mskd.errors import UserError


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
    if not pathlib.Path(path).is_file():
        raise UserError(
            f"No flagfile {str(path)!r} (looked from {pathlib.Path.cwd()})."
        )
    values = flags.FlagValues()
    define(values)
    try:
        values(["tf_mskd", f"--flagfile={path}"])
    except flags.Error as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None
    return dataclasses.replace(config_from(values), **overrides)


def to_flagfile(config):
    """Returns the text of a flagfile that reads back as `config`."""
    lines = [
        f"--{field.name}={_text(getattr(config, field.name))}"
        for field in dataclasses.fields(Config)
    ]
    return "\n".join(lines) + "\n"


def _text(value):
    return str(value).lower() if isinstance(value, bool) else str(value)
