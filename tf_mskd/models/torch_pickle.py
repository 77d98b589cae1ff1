"""Reads the pickle of a PyTorch state dict without Python's unpickler.

A pickle is a program, and Python's unpickler runs it: it imports and calls whatever the
file names. Here the instructions are read by `pickletools.genops`, which runs nothing,
and only those that build dicts, lists, tuples, text and numbers are followed. The few
functions that a file may call are given by the caller; any other is refused by name.
"""

import pickletools
import typing
from collections.abc import Callable, Mapping

from tf_mskd.utils.errors import UserError

NOTHING = "which a file of weights has no need of: nothing was executed"
REMEDY = "Save the weights alone, torch.save(model.state_dict(), PATH)"
LONGEST = 100  # characters of a file's own names in a message


class Damaged(ValueError):
    """The instructions do not fit together."""


class Named(typing.NamedTuple):
    """What a name in the file stands for.

    Attributes:
        name: str, "module.name".
        value: str, the kind of number of a storage, or the function to call.
    """

    name: str
    value: typing.Any


def read_pickle(
    data: bytes | typing.BinaryIO,
    path: str,
    known: Mapping[str, typing.Any],
    stored: Callable[[typing.Any], typing.Any],
) -> typing.Any:
    """Builds the object that a pickle describes.

    Args:
        data: the pickle, of any protocol, or a file that is read up to its end; what
            follows is not read.
        path: str, the file it is from, for errors.
        known: mapping, "module.name" -> what it stands for: a function that the pickle
            may call, or a value.
        stored: function of a persistent id, returns the object kept outside the pickle.

    Returns:
        dict, list, tuple, str, int, float, bool, None, or what the functions return.

    Raises:
        UserError: if an instruction or a name is none that weights need.
        Damaged: if the pickle is cut short or its instructions do not fit together.

    Example:
        >>> import pickle
        >>> read_pickle(pickle.dumps({"a": (1, 2.5)}), "file", {}, None)
        {'a': (1, 2.5)}
        >>> read_pickle(pickle.dumps(print), "a.pth", {}, None)
        Traceback (most recent call last):
            ...
        tf_mskd.utils.errors.UserError: 'a.pth' calls builtins.print, which a file of
        weights has no need of: nothing was executed. Save the weights alone,
        torch.save(model.state_dict(), PATH).
    """
    machine = _Machine(path, known, stored)
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name not in STEPS:
                raise _refused(path, f"uses the instruction {opcode.name}")
            STEPS[opcode.name](machine, argument)
        return machine.pop()
    except (UserError, Damaged):
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise Damaged(f"its pickle cannot be read, {type(error).__name__}") from error


def _refused(path, what):
    what = what if len(what) <= LONGEST else f"{what[:LONGEST]}..."
    return UserError(f"{path!r} {what}, {NOTHING}. {REMEDY}.")


class _Machine:
    """The stack, its marks and the memo of a pickle that is read."""

    def __init__(self, path, known, stored):
        self.path, self.known, self.stored = path, known, stored
        self.stack, self.below, self.memo = [], [], {}

    def push(self, value):
        self.stack.append(value)

    def pop(self):
        return self.stack.pop()

    def mark(self):
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self):
        """What was pushed since the last mark, which goes."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def last(self, count):
        items = tuple(self.stack[-count:]) if count else ()
        if len(items) != count:
            raise IndexError(count)
        del self.stack[len(self.stack) - count :]
        return items

    def top(self, kind):
        """The container at the top of the stack."""
        if type(self.stack[-1]) is not kind:
            raise TypeError(kind.__name__)
        return self.stack[-1]

    def name(self, text):
        if text not in self.known:
            raise _refused(self.path, f"calls {text}")
        self.push(Named(text, self.known[text]))


def _global(machine, argument):
    machine.name(argument.replace(" ", ".", 1))


def _stack_global(machine, argument):
    module, name = machine.last(2)
    machine.name(f"{module}.{name}")


def _reduce(machine, argument):
    function, arguments = machine.last(2)
    if not isinstance(function, Named) or not isinstance(arguments, tuple):
        raise TypeError("REDUCE")
    if not callable(function.value):
        raise _refused(machine.path, f"calls {function.name}")
    machine.push(function.value(*arguments))


def _build(machine, argument):
    """The attributes of an ordered dict, `_metadata`, are no weights: left out."""
    state = machine.pop()
    if type(machine.stack[-1]) is not dict or type(state) is not dict:
        raise _refused(machine.path, "sets attributes of an object (BUILD)")


def _set_items(machine, argument):
    _set(machine, machine.since_mark())


def _set_item(machine, argument):
    _set(machine, machine.last(2))


def _set(machine, items):
    target = machine.top(dict)
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str | int):
            raise TypeError("key")
        target[key] = value


def _append(machine, argument):
    (value,) = machine.last(1)
    machine.top(list).append(value)


def _appends(machine, argument):
    items = machine.since_mark()
    machine.top(list).extend(items)


def _put(machine, argument):
    machine.memo[argument] = machine.stack[-1]


def _memoize(machine, argument):
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _constant(make):
    return lambda machine, argument: machine.push(make())


def _tuple_of(count):
    return lambda machine, argument: machine.push(machine.last(count))


def _nothing(machine, argument):
    """Instructions about the pickle itself."""


def _push(machine, argument):
    machine.push(argument)


STEPS = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), _nothing),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), _push),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), _push),
    "NONE": _constant(lambda: None),
    "NEWTRUE": _constant(lambda: True),
    "NEWFALSE": _constant(lambda: False),
    "EMPTY_DICT": _constant(dict),
    "EMPTY_LIST": _constant(list),
    "EMPTY_TUPLE": _tuple_of(0),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "TUPLE": lambda machine, argument: machine.push(tuple(machine.since_mark())),
    "MARK": lambda machine, argument: machine.mark(),
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "APPEND": _append,
    "APPENDS": _appends,
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _put),
    "MEMOIZE": _memoize,
    **dict.fromkeys(
        ("BINGET", "LONG_BINGET"), lambda machine, n: machine.push(machine.memo[n])
    ),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "BINPERSID": lambda machine, argument: machine.push(machine.stored(machine.pop())),
    "REDUCE": _reduce,
    "BUILD": _build,
}
