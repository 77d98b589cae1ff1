"""The images of a run on the device: which rows a step reads, cropped and mirrored."""

import typing

import jax.numpy as jnp
import numpy as np
from jax import lax

from tf_mskd.data.arrays import Source
from tf_mskd.data.augment_draws import DRAWS_PER_STEP
from tf_mskd.data.order import epoch_order, steps_per_epoch
from tf_mskd.on_jax import counter_random as random
from tf_mskd.runs.config import Config
from tf_mskd.runs.source import split


class Images:
    """The training images of a run, and what each of its epochs does with them.

    Order and views are those of the same run under TensorFlow: both are functions of
    seed, epoch and position.

    Args:
        config: `Config`; augmented by "crop", "flip" or "crop,flip".
        source: `Source`.

    Attributes:
        train_ids, validation_ids: int64 [n], positions in the train split.
        steps_per_epoch: int.
    """

    def __init__(self, config: Config, source: Source):
        self._config = config
        self.train_ids, self.validation_ids = split(config, source)
        self.steps_per_epoch = steps_per_epoch(self.train_ids, config.batch_size)
        self._padding = config.crop_padding if "crop" in config.augment else 0
        border = (self._padding, self._padding)
        images = np.pad(source.train.images, ((0, 0), border, border, (0, 0)))
        self._images, self._shape = jnp.asarray(images), source.image_shape
        self._labels = jnp.asarray(source.train.labels)

    def arrays(self) -> dict[str, typing.Any]:
        """Returns what `batch` reads in every epoch."""
        return {"images": self._images, "labels": self._labels}

    def plan(self, epoch: int) -> dict[str, np.ndarray]:
        """Returns the rows of an epoch and their windows, each [steps, batch]."""
        config = self._config
        shape = self.steps_per_epoch, config.batch_size
        count = self.steps_per_epoch * config.batch_size
        rows = epoch_order(self.train_ids, config.seed, epoch)[:count]
        view = epoch % config.views if config.views else epoch
        keys = random.example_keys(config.augment_seed, view, rows)
        drawn = {
            "rows": rows.astype(np.int32),
            "top": np.zeros(count, np.int32),
            "left": np.zeros(count, np.int32),
            "flipped": np.zeros(count, bool),
        }
        for position, name in enumerate(config.augment):
            draw = position * DRAWS_PER_STEP
            if name == "crop":
                drawn["top"] = random.integers(keys, draw, 2 * self._padding + 1)
                drawn["left"] = random.integers(keys, draw + 1, 2 * self._padding + 1)
            elif name == "flip":
                drawn["flipped"] = random.uniform(keys, draw) < 0.5
        return {name: values.reshape(shape) for name, values in drawn.items()}

    def batch(
        self,
        arrays: dict[str, typing.Any],
        plan: dict[str, typing.Any],
        step: typing.Any,
    ) -> tuple[typing.Any, dict[str, typing.Any]]:
        """Returns (images uint8 [B, H, W, C], targets) of a step of the epoch.

        Args:
            arrays: of `arrays`.
            plan: of `plan`.
            step: int scalar, within the epoch.
        """
        height, width, _ = self._shape
        at = {n: lax.dynamic_index_in_dim(v, step, 0, False) for n, v in plan.items()}
        rows = at["top"][:, None] + jnp.arange(height)
        columns = jnp.arange(width)
        columns = jnp.where(at["flipped"][:, None], width - 1 - columns, columns)
        columns = at["left"][:, None] + columns
        examples = at["rows"][:, None, None]
        images = arrays["images"][examples, rows[:, :, None], columns[:, None, :]]
        return images, {"label": arrays["labels"][at["rows"]], "index": at["rows"]}
