"""Which columns of a parquet file hold images and classes, and what these are called.

The writers of model hubs note the kinds of columns and the names of classes in the
schema, as JSON below the key `huggingface`. Files of others are read by their types.
"""

import json
import pathlib
import typing
from collections.abc import Sequence

import pyarrow as pa

from tf_mskd.utils.errors import UserError, unknown_name

NOTES = b"huggingface"
USUAL = {"image": ("image", "img"), "label": ("label", "labels")}  # names
TYPES = {"image": "a struct {bytes, path} or binary", "label": "integers or strings"}


def image_column(
    schema: pa.Schema, path: pathlib.Path, wanted: str | None = None
) -> str:
    """Returns the column of encoded images.

    Args:
        schema: columns of a file.
        path: of the file, for messages.
        wanted: str, --image_column, or None: the only column of such a type, or the
            only one of these that is called `image` or `img`.

    Raises:
        UserError: no such column, several, or one of another type.

    Example:
        >>> schema = pa.schema({"img": pa.binary(), "label": pa.int64()})
        >>> image_column(schema, pathlib.Path("train.parquet"))
        'img'
    """
    found = [field.name for field in schema if _holds_images(field.type)]
    return _choose("image", schema, path, wanted, found, found)


def label_column(
    schema: pa.Schema, path: pathlib.Path, wanted: str | None = None
) -> str:
    """Returns the column of classes.

    Args:
        schema, path: see `image_column`.
        wanted: str, --label_column, or None: the only column of such a type, or the
            only one of these that is called `label` or `labels`. Where columns are
            noted as classes, only those count.

    Raises:
        UserError: as `image_column` does.

    Example:
        >>> schema = pa.schema({"label": pa.int64(), "width": pa.int64()})
        >>> label_column(schema, pathlib.Path("train.parquet"))
        'label'
    """
    found = [field.name for field in schema if _holds_classes(field.type)]
    notes = _notes(schema, path)
    noted = [name for name in found if _kind(notes.get(name)) == "ClassLabel"]
    return _choose("label", schema, path, wanted, found, noted or found)


def class_names(
    schema: pa.Schema, path: pathlib.Path, column: str
) -> tuple[str, ...] | None:
    """Returns the names of the classes of an integer column, or None: not noted.

    Args:
        schema, path: see `image_column`.
        column: str, of classes.

    Raises:
        UserError: for notes that are damaged.
    """
    note = _notes(schema, path).get(column)
    if not pa.types.is_integer(schema.field(column).type):
        return None
    names = note.get("names") if _kind(note) == "ClassLabel" else None
    if not isinstance(names, list) or not all(isinstance(x, str) for x in names):
        return None
    return tuple(names) or None


def _choose(
    what: str,
    schema: pa.Schema,
    path: pathlib.Path,
    wanted: str | None,
    fit: Sequence[str],
    candidates: Sequence[str],
) -> str:
    """The column that is wanted, or the one that stands out of the candidates."""
    if wanted is not None:
        return _checked(what, schema, path, wanted, fit)
    named = [name for name in candidates if name in USUAL[what]]
    found = named if len(named) == 1 else candidates
    if len(found) > 1:
        raise UserError(
            f"Several columns of {path} may be the {what}s: {', '.join(candidates)}; "
            f"choose one with --{what}_column."
        )
    if not found:
        for name in USUAL[what]:
            if name in schema.names:
                _checked(what, schema, path, name, fit)
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise UserError(
            f"Found no {what} column in {path}: expected {TYPES[what]}, got {columns}."
        )
    return found[0]


def _checked(what, schema, path, name, fit):
    """The name of a column, which must be there and be of such a type."""
    if name not in schema.names:
        raise unknown_name(f"--{what}_column of {path}", name, schema.names)
    if name not in fit:
        raise UserError(
            f"Column {name!r} of {path} must be {TYPES[what]} to be taken as {what}, "
            f"it is {schema.field(name).type}: choose another with --{what}_column."
        )
    return name


def _holds_images(kind):
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_binary(kind.field(index).type)
    return _is_binary(kind)


def _is_binary(kind):
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _holds_classes(kind):
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return is_text or pa.types.is_integer(kind)


def _notes(schema: pa.Schema, path: pathlib.Path) -> dict[str, typing.Any]:
    """{column: what the writer noted of it}."""
    try:
        value = json.loads((schema.metadata or {}).get(NOTES, b"{}"))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"Names of classes in {path} cannot be read ({error}); get it anew."
        ) from error
    for key in ("info", "features"):
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _kind(note):
    return note.get("_type") if isinstance(note, dict) else None
