"""The steps of a run in JAX: an epoch's data on the device, many steps in one call."""

import contextlib

import jax
import jax.numpy as jnp
import keras

from tf_mskd.on_jax.images import Images
from tf_mskd.training.distiller import Distiller
from tf_mskd.training.steps import Done


class JaxLoop:
    """Does steps of a `Distiller` on one device, any number in one compiled call.

    The teacher's weights and the images are arguments of the call, so that they are on
    the device once. The number of steps is one too: one program serves a whole run.

    Args:
        distiller: compiled `Distiller`, its optimizer built, that trains all exits.
        images: `Images` of the run.

    Attributes:
        steps_must_agree: see `steps.Steps`.
    """

    steps_must_agree = False

    def __init__(self, distiller: Distiller, images: Images):
        self._distiller, self._images = distiller, images
        self._teacher = distiller.teacher_network
        self._step, self._planned, self._plan = 0, -1, {}
        self._one = jax.jit(self._do_one, donate_argnums=0)
        self._many = jax.jit(self._do_many, donate_argnums=0)

    def open(self, step: int) -> None:
        """Makes `step` the next global step."""
        self._step = step

    def run(self, steps: int) -> Done:
        """Does so many steps; the data are on the device, nothing waits for them."""
        epoch, start = divmod(self._step, self._images.steps_per_epoch)
        if epoch != self._planned:
            plan = self._images.plan(epoch)
            self._planned, self._plan = epoch, jax.device_put(plan)
        groups = self._variables()
        state = tuple([v.value for v in group] for group in groups)
        fixed = _values(self._teacher), self._images.arrays(), self._plan
        if jax.default_backend() == "cpu":
            # whose convolutions are many times slower within a loop of XLA's own
            finite = 0
            for step in range(start, start + steps):
                state, is_finite = self._one(state, fixed, step)
                finite += int(is_finite)
        else:
            state, finite = self._many(state, fixed, start, steps)
        for group, values in zip(groups, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        self._step += steps
        return Done(int(finite), 0.0)

    def guarding(self) -> contextlib.AbstractContextManager:
        """Nothing to explain: there are no other workers."""
        return contextlib.nullcontext()

    def any_worker(self, *claims: bool) -> tuple[bool, ...]:
        """Returns the claims: this is the only worker."""
        return claims

    def check_start(self, step: int) -> None:
        """Does nothing: no other worker can differ."""

    def spread_seeds(self, variables: list[keras.Variable]) -> None:
        """Does nothing: there is one replica."""

    def _variables(self):
        """The state of `train_step`, in its order."""
        distiller = self._distiller
        return (
            distiller.trainable_variables,
            distiller.non_trainable_variables,
            distiller.optimizer.variables,
            distiller.metrics_variables,
        )

    def _do_many(self, state, fixed, start, steps):
        def step(i, carry):
            state, finite = carry
            state, is_finite = self._do_one(state, fixed, start + i)
            return state, finite + is_finite

        return jax.lax.fori_loop(0, steps, step, (state, jnp.int32(0)))

    def _do_one(self, state, fixed, step):
        teacher, arrays, plan = fixed
        images, targets = self._images.batch(arrays, plan, step)
        if self._teacher is not None:
            outputs, _ = self._teacher.stateless_call(*teacher, images, training=False)
            targets["teacher"] = jax.lax.stop_gradient(outputs)
        logs, state = self._distiller.train_step(state, (images, targets))
        return tuple(state), jnp.isfinite(logs["loss"]).astype("int32")


def _values(network):
    if network is None:
        return ()
    groups = network.trainable_variables, network.non_trainable_variables
    return tuple([v.value for v in group] for group in groups)
