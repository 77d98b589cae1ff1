"""What absl reports of a flag, in one line with the nearest valid name."""

from absl import flags

from tf_mskd.utils.errors import nearest

HIDDEN = "former names"  # group of the flags that `--help` does not list


def listed(values: flags.FlagValues) -> dict[str, list[flags.Flag]]:
    """Returns the flags that `--help` lists: not absl's own, no former names."""
    groups = values.flags_by_module_dict()
    hidden = {group for group in groups if group.startswith("absl.")} | {HIDDEN}
    return {group: groups[group] for group in groups if group not in hidden}


def explain(error: flags.Error, values: flags.FlagValues) -> str:
    """Returns one line for an error of absl's: what was expected, what arrived.

    Args:
        error: what parsing `values` raised.
        values: the `FlagValues`.

    Example:
        >>> values = flags.FlagValues()
        >>> _ = flags.DEFINE_integer("epochs", 1, "", flag_values=values)
        >>> try:
        ...     _ = values(["train", "--epochs=two"])
        ... except flags.Error as error:
        ...     print(explain(error, values))
        --epochs must be an integer, got 'two'.
    """
    if isinstance(error, flags.UnrecognizedFlagError):
        known = [
            f"--{flag.name}" for group in listed(values).values() for flag in group
        ]
        name = f"--{error.flagname}"
        near = nearest(name, known, cutoff=0.7)
        return f"Unknown flag {name!r}{near} --help lists the flags."
    text, cause = " ".join(str(error).split()), error.__context__
    name, equals, value = str(error).removeprefix("flag --").partition("=")
    if isinstance(error, flags.IllegalFlagValueError) and equals and name in values:
        return _expected(values[name], value.removesuffix(f": {cause}"), cause)
    missing = text.removeprefix("Missing value for flag ")
    if missing != text:
        return f"{missing} needs a value: write {missing}=VALUE."
    return text


def _expected(flag, value, cause):
    parser, low, high = flag.parser, None, None
    if isinstance(parser, flags.EnumParser):
        choices = parser.enum_values
        expected, near = f"one of {', '.join(choices)}", nearest(value, choices)
        return f"--{flag.name} must be {expected}, got {value!r}{near}"
    if isinstance(parser, flags.BooleanParser):
        return f"--{flag.name} must be true or false, got {value!r}."
    if not isinstance(parser, flags.IntegerParser | flags.FloatParser):
        return str(cause)  # a parser of ours, whose message is whole
    kind = "an integer" if isinstance(parser, flags.IntegerParser) else "a number"
    low, high = parser.lower_bound, parser.upper_bound
    if (low, high) != (None, None):
        low, high = ("-inf" if low is None else low), ("inf" if high is None else high)
        kind += f" in [{low}, {high}]"
    return f"--{flag.name} must be {kind}, got {value!r}."
