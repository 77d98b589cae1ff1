"""The absl flags of a run, made from the fields of `Config`, and its flagfile."""

import dataclasses
import typing

from absl import flags

from tf_mskd.runs import parsers
from tf_mskd.runs.config import Config
from tf_mskd.runs.flagfiles import expand, is_line
from tf_mskd.runs.flagfiles import find_flagfile as find_flagfile
from tf_mskd.runs.settings import read_setting, text_of
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.flag_errors import HIDDEN, explain

FORMER_NAMES = {  # of flags that flagfiles of users and old run folders hold
    "cache_views": "cached_augmentations",
    "fresh_teacher": "untrained_teacher",
}


class _Parser(flags.ArgumentParser):
    """Reads a setting of several values, as `Config` does."""

    def __init__(self, field):
        self._field = field

    def parse(self, argument):
        text = isinstance(argument, str)
        return read_setting(self._field, argument) if text else argument


class _Boolean(flags.BooleanParser):
    """Reads a boolean as `Config`, arguments of methods and `tune` do."""

    def parse(self, argument):
        text = isinstance(argument, str)
        return parsers.scalar("", bool, argument) if text else super().parse(argument)


class _Serializer(flags.ArgumentSerializer):
    """Shows such a setting in `--help` as it is written."""

    def __init__(self, field):
        self._field = field

    def serialize(self, value):
        return text_of(self._field, value)


def define(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines one flag per field of `Config`, grouped as `Config` groups them."""
    for field in dataclasses.fields(Config):
        meta, serializer = field.metadata, None
        options = {"flag_values": flag_values, "module_name": f"{meta['group']} flags"}
        if field.type is bool:
            flags.DEFINE_boolean(field.name, field.default, meta["help"], **options)
            continue
        if meta["language"]:
            parser, serializer = _Parser(field), _Serializer(field)
        elif meta["choices"]:
            parser = flags.EnumParser(list(meta["choices"]))
        elif field.type in (int, float):
            kind = flags.IntegerParser if field.type is int else flags.FloatParser
            parser = kind(meta["low"], meta["high"])
        else:
            parser = flags.ArgumentParser()
        default = field.default
        flags.DEFINE(
            parser, field.name, default, meta["help"], serializer=serializer, **options
        )
    for former, name in FORMER_NAMES.items():
        flags.DEFINE_alias(former, name, flag_values=flag_values, module_name=HIDDEN)
    share_booleans(flag_values)


def share_booleans(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Lets every boolean flag take what a boolean of `Config` takes: yes, off, ..."""
    for name in flag_values:
        flag = flag_values[name]
        if isinstance(flag.parser, flags.BooleanParser):
            flag.parser = _Boolean()


def define_run() -> None:
    """Defines the flags of a command that does runs: those of `Config`, --dry_run."""
    define()
    flags.DEFINE_boolean(
        "dry_run",
        False,
        "Print the runs that this command would do, and stop.",
        module_name="run flags",
    )


def config_from(flag_values: flags.FlagValues) -> Config:
    """Returns the `Config` of parsed flags.

    Raises:
        UserError: for values that do not fit together.
    """
    names = [field.name for field in dataclasses.fields(Config)]
    return Config(**{name: flag_values[name].value for name in names})


def read_flagfile(path: str, **overrides) -> Config:
    """Reads a flagfile into a `Config`.

    Args:
        path: str or path of the flagfile, see `find_flagfile`.
        **overrides: settings that win over the file's.

    Returns:
        `Config`.

    Raises:
        UserError: if the file is missing, or holds an unknown flag or a bad value.
    """
    return read_flags([f"--flagfile={path}"], **overrides)


def read_flags(arguments: list[str], **overrides) -> Config:
    """Reads flags, as on a command line, into a `Config`.

    Args:
        arguments: list of str, such as ["--flagfile=a.flags", "--lr=0.1"].
        **overrides: settings that win over the flags'.

    Returns:
        `Config`.

    Raises:
        UserError: if a flagfile is missing, for an unknown flag or a bad value.

    Example:
        >>> read_flags(["--flagfile=configs/digits/pair.flags", "--lr=0.1"]).lr
        0.1
    """
    return dataclasses.replace(config_from(_parsed(arguments)), **overrides)


def read_flag(arguments: list[str], name: str) -> typing.Any:
    """Reads one flag of `read_flags`, whether it fits the others or not.

    Args:
        arguments: see `read_flags`.
        name: str, the setting.

    Returns:
        its value, as of `Config`.

    Raises:
        UserError: see `read_flags`.

    Example:
        >>> read_flag(["--flagfile=configs/methods/oto_star.flags"], "augment")
        ('crop', 'flip', 'autoaugment')
    """
    return _parsed(arguments)[name].value


def _parsed(arguments):
    values = flags.FlagValues()
    define(values)
    try:
        values(["tf_mskd", *expand(arguments)])
    except flags.Error as error:
        given = " ".join(a.removeprefix("--flagfile=") for a in arguments)
        raise UserError(f"{given}: {explain(error, values)}") from None
    return values


def to_flagfile(config: Config) -> str:
    """Returns the text of a flagfile that reads back as `config`.

    Raises:
        UserError: if a setting cannot stand on one line.
    """
    lines = []
    for field in dataclasses.fields(Config):
        text = text_of(field, getattr(config, field.name))
        if not is_line(text):
            raise UserError(
                f"--{field.name} must be one line of plain text, got {text!r}."
            )
        lines.append(f"--{field.name}={text}\n")
    return "".join(lines)


def given_flags(values: flags.FlagValues, own: dict[str, str]) -> list[str]:
    """Returns the flags of a run that the command line gives, as it gives them.

    Args:
        values: the flags of the tool.
        own: setting that differs from run to run -> the tool's flag instead of it.

    Raises:
        UserError: if a setting of `own` is given.
    """
    given = [f for f in dataclasses.fields(Config) if values[f.name].present]
    for field in given:
        if field.name in own:
            raise UserError(
                f"--{field.name} differs from run to run: give {own[field.name]}."
            )
    return [f"--{f.name}={text_of(f, values[f.name].value)}" for f in given]
