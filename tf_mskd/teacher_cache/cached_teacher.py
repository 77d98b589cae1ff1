"""A teacher whose outputs come from a cache: opened, filled and checked."""

import hashlib
import sys
import time
import typing
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tqdm

from tf_mskd.data.arrays import Source
from tf_mskd.data.order import epoch_views
from tf_mskd.methods.common.method import Method
from tf_mskd.models.saving import fingerprint
from tf_mskd.teacher_cache.parts import Part
from tf_mskd.teacher_cache.store import TeacherCache
from tf_mskd.training.distiller import Distiller
from tf_mskd.training.evaluation import Predictor
from tf_mskd.training.strategies import is_multi_worker
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.names import is_kind

CLOSE = 0.01  # of the largest value of a row: float16 and the order of sums are below


class CachedTeacher:
    """Serves what a distiller reads of its teacher from `config.teacher_cache`.

    Args:
        distiller: `Distiller` with a teacher.
        strategy: `tf.distribute.Strategy` under which it was made.
        data: `data.run_data.Data`.
        config: `Config` with `teacher_cache`.

    Raises:
        UserError: if the method needs more of the teacher than a cache can hold, or the
            cache is another teacher's.
    """

    def __init__(
        self,
        distiller: Distiller,
        strategy: tf.distribute.Strategy,
        data: typing.Any,
        config: typing.Any,
    ):
        self._network, self._data = distiller.teacher_network, data
        self._strategy, self._predictor = strategy, Predictor(strategy)
        self._repeats = config.repeats
        sizes = cached_vectors(distiller, config.cache_top_k)
        identity = {
            "teacher": fingerprint(distiller.teacher),
            "network": _digest(distiller.teacher.to_json()),
            "teacher size": config.teacher_size or None,
            "data": data_digest(data.source),
            "augmentation": data.augmentation,
            "view_seed": config.augment_seed,
        }
        self.cache = TeacherCache(
            config.teacher_cache,
            identity,
            sizes,
            views=config.views,
            examples=len(data.source.train.labels),
            top_k=config.cache_top_k,
            temperature=temperature_of(distiller.method),
        )
        self.sizes, self.read = sizes, self.cache.read
        self._command = "python -m tf_mskd.cache with the same flags"
        self._check()

    def prepare(
        self, epoch: int, should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Computes the rows that an epoch lacks; see `fill`.

        Raises:
            UserError: if rows are missing and several workers share the run.
        """
        for view in epoch_views(epoch, self._repeats, self.cache.views):
            self._prepare_view(int(view), should_stop)
            if should_stop():
                return

    def _prepare_view(self, view, should_stop):
        missing = self.cache.missing(view, self._data.train_ids)
        if is_multi_worker(self._strategy) and len(missing):
            raise UserError(
                f"View {view + 1} of teacher cache {self.cache.folder} lacks "
                f"{len(missing)} rows; several workers need all rows before they "
                f"start: fill it with {self._command}."
            )
        if len(missing):
            self.fill(view, should_stop)

    def fill(
        self,
        view: int,
        should_stop: Callable[[], bool] = lambda: False,
        part: Part | None = None,
    ) -> int:
        """Runs the teacher over the training images whose rows of a view are missing.

        Waits while another process does the same. Finished rows stay when it is killed
        or stopped.

        Args:
            view: int in [0, views).
            should_stop: function -> bool, called after each batch.
            part: `Part` of the images, or None for all. Parts do not wait for each
                other.

        Returns:
            int, number of rows computed.

        Raises:
            UserError: if there are fewer batches than parts.
        """
        ids = self._ids_of(part)
        with self.cache.locked(should_stop, part.lock if part else "lock") as is_mine:
            missing = self.cache.missing(view, ids) if is_mine else ()
            return self._fill(view, missing, should_stop) if len(missing) else 0

    def _ids_of(self, part):
        ids = self._data.train_ids
        return part.of(ids, self._data.config.batch_size) if part else ids

    def _fill(self, view, missing, should_stop):
        title, start, done = f"view {view + 1}/{self.cache.views}", time.time(), 0
        with tqdm.tqdm(
            total=len(missing), unit="row", desc=title, disable=not sys.stderr.isatty()
        ) as bar:
            for ids, outputs in self._compute(view, missing):
                self.cache.write(view, ids, outputs)
                done += len(ids)
                bar.update(len(ids))
                if should_stop():
                    break
        seconds = time.time() - start
        print(f"teacher cache: {title}, {done} rows in {seconds:.1f} s", flush=True)
        return done

    def count(self) -> int:
        """Returns the rows of the full cache: one for each training image and view."""
        return self.cache.views * len(self._data.train_ids)

    def lacking(self, part: Part | None = None) -> int:
        """Returns how many rows nobody has written yet, without their checksums.

        Args:
            part: `Part` of the images, or None for all.
        """
        ids = self._ids_of(part)
        filled = [len(self.cache.filled(v, ids)) for v in range(self.cache.views)]
        return len(ids) * self.cache.views - sum(filled)

    def _compute(self, view, ids):
        stream = self._data.view_stream(view, ids)
        for outputs, targets in self._predictor.batches(self._network, stream):
            yield targets["index"], outputs

    def _check(self):
        """Recomputes a batch of random rows with the teacher itself, and compares."""
        generator = np.random.default_rng()  # other rows at every start
        for view in generator.permutation(self.cache.views):
            ids = self.cache.filled(view, self._data.train_ids)
            if len(ids):
                break
        else:
            return
        size = min(len(ids), self._data.config.batch_size)
        ids = np.sort(generator.choice(ids, size, replace=False))
        # damaged rows count as missing, and are computed again where they are needed
        ids = ids[~np.isin(ids, self.cache.missing(view, ids))]
        if not len(ids):
            return
        ((_, outputs),) = self._compute(view, ids)
        for name, row in self.cache.read(view, ids).items():
            expected = self.cache.through(name, outputs[name]).astype(np.float32)
            gap = np.abs(row.astype(np.float32) - expected)
            wrong = (gap > CLOSE * np.abs(expected).max(axis=1, keepdims=True)).any(1)
            if wrong.any():
                raise UserError(
                    f"Teacher cache {self.cache.folder} does not match this teacher: "
                    f"{wrong.sum()} of {len(ids)} random rows of {name} differ from "
                    f"its outputs, by up to {gap.max():.3g}. Delete the folder, or use "
                    "another --teacher_cache."
                )


def cached_vectors(distiller: Distiller, top_k: int = 0) -> dict[str, int]:
    """Returns what a cache stores: dict, output name -> int, length of its vector.

    Raises:
        UserError: if training reads teacher outputs that cannot be cached; says which.
    """
    method, network = distiller.method, distiller.teacher_network
    if network is None:
        method.fail("uses no teacher output: remove --teacher_cache.")
    if method.trains_teacher or method.changes_batch:
        method.fail(
            "modifies images within the step, or trains the teacher, whose outputs "
            "cannot be cached then. Remove --teacher_cache."
        )
    sizes = {}
    for name, tensor in network.output.items():
        if len(tensor.shape) != 2:
            method.fail(
                f"reads {name} of the teacher, a feature map of shape "
                f"{tensor.shape[1:]}: only vectors (exits and embeddings) can be "
                "cached. Remove --teacher_cache."
            )
        if top_k and not distiller.task.one_class:
            raise UserError(
                f"--cache_top_k ranks classes, task {distiller.task.name!r} answers "
                "for each of them: remove --cache_top_k."
            )
        if top_k and not is_kind(name, "exit"):
            method.fail(
                f"reads {name} of the teacher, which has no classes to rank: remove "
                "--cache_top_k."
            )
        sizes[name] = tensor.shape[1]
    return sizes


def temperature_of(method: Method) -> float:
    """Returns the temperature at which terms read the teacher's logits, or 1.

    Of several methods it is the highest.

    Example:
        >>> from tf_mskd.methods.common.create import create_method
        >>> temperature_of(create_method("at,kd,dkd", **{"kd.temperature": 2.0}))
        4.0
    """
    parts = getattr(method, "methods", [method])
    return max(float(getattr(part, "temperature", None) or 1) for part in parts)


def data_digest(source: Source) -> str:
    """Returns what identifies the images: name, sizes, all labels, some images."""
    images, labels = source.train.images, source.train.labels
    digest = hashlib.sha256(np.asarray(labels, np.int64).tobytes())
    for position in np.linspace(0, len(labels) - 1, 64).astype(int):
        digest.update(np.ascontiguousarray(images[position]).tobytes())
    shape = "x".join(map(str, source.image_shape))
    return f"{source.name}, {len(labels)} of {shape}, {digest.hexdigest()[:16]}"


def _digest(text):
    return hashlib.sha256(text.encode()).hexdigest()
