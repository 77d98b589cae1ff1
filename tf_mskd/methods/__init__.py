"""The distillation methods, one a file, and what a file of one needs.

`Method` is the contract, `register` gives it its name; `losses`, `naming`, `ranges` and
`rows` are modules of functions. More shared parts lie in `tf_mskd.methods.common`.
"""

from tf_mskd.methods.common import losses, naming, ranges, rows
from tf_mskd.methods.common.method import Method
from tf_mskd.methods.common.registry import register

__all__ = ["Method", "losses", "naming", "ranges", "register", "rows"]
