"""One-line warnings: on stderr, beside the one-line errors of a command."""

import sys

from tf_mskd.utils.errors import one_line


def warn(text: str) -> None:
    """Prints a line that begins with `warning:` on stderr.

    Args:
        text: str; what would break the line is escaped.
    """
    print(f"warning: {one_line(text)}", file=sys.stderr, flush=True)
