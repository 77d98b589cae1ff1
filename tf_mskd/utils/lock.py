"""Locks between processes, on files; the system drops those of a process that dies."""

import fcntl
import os
import pathlib
import stat


def open_lock(path: pathlib.Path) -> int:
    """Opens a lock file, created if it is missing; returns its descriptor.

    Raises:
        OSError: if it cannot be opened, is a link or no regular file.
    """
    # what a holder writes into it would end up in the file that a link leads to
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    if not stat.S_ISREG(os.fstat(lock).st_mode):
        os.close(lock)
        raise OSError(0, "it is no regular file")
    return lock


def take_lock(lock: int) -> bool:
    """Locks an open lock file unless another process holds it; returns whether."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
