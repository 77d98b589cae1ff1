"""Data sets as arrays in memory, index-driven streams, stateless augmentation.

The names are imported when they are first used: `tf_mskd.data.prepare` looks at its
flags before TensorFlow starts.
"""

import importlib

_HOME = {  # name -> module that defines it
    "Mixing": "mixing",
    "Source": "arrays",
    "Split": "arrays",
    "eval_stream": "pipeline",
    "load_source": "sources",
    "make_augment": "augment",
    "split_ids": "splits",
    "steps_per_epoch": "order",
    "train_stream": "pipeline",
}
__all__ = list(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'tf_mskd.data' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"tf_mskd.data.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
