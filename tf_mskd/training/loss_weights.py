"""The weights of terms and exits as variables, and the weighted sum of a step."""

import typing

import keras

from tf_mskd.utils.errors import UserError, unknown_name
from tf_mskd.utils.replicas import all_reduce_sum, num_replicas, replica_mean


class LossWeights:
    """What each term and each exit weighs in the loss.

    L = sum over terms m and exits k of v_m * w_k * mean_b term_{m,k}[b]

    A callback may assign to the variables: the next step reads them.

    Args:
        model: `keras.Model` that owns the variables.
        terms: dict, term -> float, the default weight v_m.
        exits: list of str, the names of the exits; their default weight w_k is 1.
        term_weights: dict, term -> float >= 0, instead of the defaults.
        exit_weights: dict, exit name -> float >= 0; likewise.

    Attributes:
        terms: dict, term -> float32 scalar variable, v_m times the epoch's factor.
        exits: dict, exit name -> float32 scalar variable, w_k.

    Raises:
        UserError: for an unknown name or a weight that is not >= 0.
    """

    def __init__(
        self,
        model: keras.Model,
        terms: dict[str, float],
        exits: list[str],
        term_weights: dict[str, float],
        exit_weights: dict[str, float],
    ):
        self._model = model
        self._constant = {**terms, **term_weights}
        self.terms = self._variables("term", terms, term_weights)
        self.exits = self._variables("exit", dict.fromkeys(exits, 1.0), exit_weights)

    def _variables(self, kind, defaults, weights):
        for name, value in weights.items():
            if name not in defaults:
                raise unknown_name(f"{kind} in {kind}_weights", name, defaults)
            if not value >= 0:
                raise UserError(f"{kind}_weights[{name!r}] must be >= 0, got {value}.")
        return {
            name: self._model.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(weights.get(name, default)),
                trainable=False,
                name=f"{kind}_weight_{name}",
            )
            for name, default in defaults.items()
        }

    def never_counts(self, term: str) -> bool:
        """Whether the constant weight of a term is 0."""
        return self._constant.get(term) == 0

    def set_factors(self, factors: dict[str, float]) -> None:
        """Sets each term to its constant weight times its factor, 1 if not named."""
        for name, variable in self.terms.items():
            variable.assign(self._constant[name] * factors.get(name, 1.0))

    def total(
        self, terms: dict[str, typing.Any], sample_weight: typing.Any = None
    ) -> typing.Any:
        """Reduces the terms of a step to the loss.

        Args:
            terms: dict, "term/output" -> float32 [B], or a scalar over the local batch.
            sample_weight: float [B] or None. A scalar term is multiplied by their
                mean.

        Returns:
            float32 scalar; the sum over replicas is the loss of the global batch.
        """
        total = 0.0
        for name, value in terms.items():
            term, _, output = name.partition("/")
            weight = self.terms[term]
            if output in self.exits:
                weight = weight * self.exits[output]
            if len(value.shape):
                mean = replica_mean(value, sample_weight)
            else:
                mean = value / num_replicas()
                if sample_weight is not None:
                    mean *= all_reduce_sum(replica_mean(sample_weight))
            total += weight * mean
        return total
