"""Flagfiles: where they lie, and what they and the files that they include hold."""

import os
import pathlib
import unicodedata

from tf_mskd.utils.errors import UserError, nearest

MOST_FLAGFILES = 100  # that one may include, each counted as often as it is read
MOST_BYTES = 2**20  # of one flagfile
PACKAGE = pathlib.Path(__file__).parents[1]
BLANKS = " \t\r\ufeff"  # around a flag; the last is a byte order mark
# no part of a line: controls, surrogates, ends of lines and paragraphs
CONTROLS = ("Cc", "Cs", "Zl", "Zp")
SHIPPED = (("configs",), ("results",))  # folders that setup.py puts there
INCLUDES = ("--flagfile", "-flagfile")
# flags that name a flagfile too, which is read later, for a run of its own
NAMING = ("--teacher_flagfile", "--init_flagfile", "--pair_flagfile")


def find_flagfile(name: str, relative_to: str | None = None) -> str:
    """Returns the path of a flagfile, in the first of these places that has it.

    The working directory; the folder of the file that names it, and the folders above
    that; for "configs/..." and "results/..." the files that come with the package.

    Args:
        name: str, path as it was written; "~" is the home directory.
        relative_to: str, path of the flagfile that names it, or None.

    Returns:
        str: the path found; `name` itself if it lies in the working directory or
        nowhere, so that what reads it can report it.

    Example:
        >>> find_flagfile("/a/b.flags")
        '/a/b.flags'
    """
    name = os.path.expanduser(name)
    if os.path.isfile(name) or os.path.isabs(name):
        return name
    folders = []
    if relative_to is not None:
        folders += pathlib.Path(relative_to).resolve().parents
    if pathlib.Path(name).parts[:1] in SHIPPED:
        folders += [PACKAGE, PACKAGE.parent]  # installed; in a clone
    found = (folder / name for folder in folders if (folder / name).is_file())
    return str(next(found, name))


def expand(arguments: list[str]) -> list[str]:
    """Replaces every --flagfile among arguments by the flags that the file holds.

    A path that a flagfile names is looked for beside that file too, see
    `find_flagfile`.

    Args:
        arguments: list of str, such as ["--flagfile=a.flags", "--lr=0.1"].

    Returns:
        list of str without --flagfile, in the order in which later ones win.

    Raises:
        UserError: if a flagfile is missing, is not text or too long, holds a line that
            is no flag, includes itself, or if they are too many.
    """
    count = 0

    def visit(path, above):
        nonlocal count
        count += 1
        if path in above or count > MOST_FLAGFILES:
            what = "itself" if path in above else f"more than {MOST_FLAGFILES} others"
            raise UserError(f"Flagfile {(*above, path)[0]!r} includes {what}.")
        return flags_of(_lines(path), (*above, path))

    def flags_of(lines, above):
        relative_to, found = (above[-1] if above else None), []
        for line in lines:
            name, equals, path = line.partition("=")
            path = find_flagfile(path.strip(), relative_to) if path.strip() else ""
            if name in INCLUDES and path:
                found += visit(path, above)
            elif name in NAMING and path:
                found.append(f"{name}={path}")
            else:
                found.append(line)
        return found

    return flags_of(_joined(arguments), ())


def is_line(text: str) -> bool:
    """Says whether a flagfile can hold this text in one line, and gives it back.

    Example:
        >>> is_line("--data_dir=/a/\u5199\u771f"), is_line("--data_dir=/a\\n")
        (True, False)
    """
    controls = any(unicodedata.category(c) in CONTROLS for c in text)
    return not controls and text == text.strip(BLANKS)


def _joined(arguments):
    """Writes the two arguments "--flagfile", "a.flags" as "--flagfile=a.flags"."""
    joined, rest = [], iter(arguments)
    for argument in rest:
        if argument == "--":
            return [*joined, argument, *rest]
        if argument in (*INCLUDES, *NAMING):
            argument = "=".join(
                [argument, *[path for path in [next(rest, "")] if path]]
            )
        joined.append(argument)
    return joined


def _lines(path):
    """The flags of one file, without blank lines and comments, checked."""
    lines = []
    for number, line in enumerate(_text(path).split("\n"), start=1):
        line = line.strip(BLANKS)
        place = f"Line {number} of flagfile {path!r}"
        if not is_line(line.replace("\t", " ")):
            raise UserError(f"{place} holds a control character.")
        if not line or line.startswith(("#", "//")):
            continue
        if not line.startswith("-"):
            raise UserError(f"{place} is no flag: write --name=value, got {line!r}.")
        lines.append(line)
    return lines


def _text(path):
    if not os.path.isfile(path):
        folder = os.path.dirname(path) or "."
        beside = os.listdir(folder) if os.path.isdir(folder) else []
        near = nearest(os.path.basename(path), beside)
        raise UserError(f"No flagfile {path!r} (looked from {os.getcwd()}){near}")
    if os.path.getsize(path) > MOST_BYTES:
        raise UserError(f"Flagfile {path!r} is longer than {MOST_BYTES} bytes.")
    try:
        return pathlib.Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"Cannot read flagfile {path!r}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UserError(
            f"Flagfile {path!r} is not text in UTF-8: save it in UTF-8."
        ) from None
