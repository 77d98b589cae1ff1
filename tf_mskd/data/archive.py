"""Members of an archive, zipped or extracted, read in memory by name.

Nothing is ever extracted, so no member name can lead outside the archive.
"""

import pathlib
import zipfile
import zlib

from tf_mskd.utils.errors import UserError

MAX_MEMBER_BYTES = 16 * 2**20  # far above any image or list that is read


class ZipMembers:
    """A zip file.

    Args:
        path: path of the file.
    """

    def __init__(self, path: pathlib.Path):
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(f"Cannot open archive {path} ({error}).") from error
        self.names = sorted(set(self._zip.namelist()))

    def read(self, name: str) -> bytes:
        """The bytes of one member; `UserError` if it is missing, huge or broken."""
        try:
            if self._zip.getinfo(name).file_size > MAX_MEMBER_BYTES:
                raise UserError(f"Archive member {name!r} is too large to be genuine.")
            return self._zip.read(name)
        except KeyError as error:
            raise _missing(name) from error
        except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            reason = f"Cannot read archive member {name!r} ({error})."
            raise UserError(reason) from error


class FolderMembers:
    """An extracted archive; names are those the zip file has.

    Args:
        path: the top folder of the archive, or the folder that holds it.
        top: str, name of the top folder.
    """

    def __init__(self, path: pathlib.Path, top: str):
        path = pathlib.Path(path).resolve()
        self._parent = path.parent if path.name == top else path
        self.names = sorted(
            file.relative_to(self._parent).as_posix()
            for file in (self._parent / top).rglob("*")
            if file.is_file()
        )

    def read(self, name: str) -> bytes:
        """The bytes of one file; `UserError` if it is missing."""
        try:
            return (self._parent / name).read_bytes()
        except OSError as error:
            raise _missing(name) from error


def open_archive(path: str | pathlib.Path, top: str) -> ZipMembers | FolderMembers:
    """`ZipMembers` for a file, `FolderMembers` for the extracted folder."""
    path = pathlib.Path(path).expanduser()
    if not path.exists():
        raise UserError(f"Archive {path} does not exist; set --archive to the file.")
    return FolderMembers(path, top) if path.is_dir() else ZipMembers(path)


def _missing(name):
    return UserError(f"Archive has no member {name!r}; use the official archive.")
