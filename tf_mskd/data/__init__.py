"""Data sets as arrays in memory, index-driven streams, stateless augmentation."""

from tf_mskd.data.augment import make_augment
from tf_mskd.data.pipeline import eval_stream, steps_per_epoch, train_stream
from tf_mskd.data.sources import Source, Split, load_source, split_ids

__all__ = [
    "Source",
    "Split",
    "eval_stream",
    "load_source",
    "make_augment",
    "split_ids",
    "steps_per_epoch",
    "train_stream",
]
