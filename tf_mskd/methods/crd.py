"""CRD: student and teacher agree on an example and not on others."""

import math

import keras
from keras import ops

from tf_mskd.methods import Method, losses, naming, ranges, register
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.replicas import all_gather, all_reduce_sum

EPSILON = 1e-7
UNSET = -1e9  # ln Z before the first batch


@register("crd")
class CRD(Method):
    """Contrastive representation distillation with two banks of all examples.

    L = sum_k CE(y, z_k) + 0.8 * mean_b (l_s[b] + l_t[b]),
    l_s[b] = - ln( o_b / (o_b + q) ) - sum_{j of K} ln( q / (o_j + q) ), q = K / n,
    o_i = exp( M_t[i] . e_s[b] / T ) / Z_s; l_t the same with s and t swapped.

    e = nrm(W v + c) in R^dim, v the vector before the deepest exit [B, D] of student
    and teacher, W and c learnt for both; b the example's own row of a bank M [n, dim],
    j those of K examples of other classes. Z is n times the mean of the exp(...) of the
    first batch and stays. Afterwards M[b] <- nrm(m * M[b] + (1 - m) * e[b]) in both
    banks, with the rows of all replicas, so that all banks stay equal. The indices of a
    batch must differ from each other.

    Scores come from e M^T [B, n], so that nothing of size B * K * dim is made.

    Args:
        num_examples: int, n, the size of the training split; `tf_mskd.train` fills it
            in.
        num_negatives: int, K, at most the number of examples of other classes.
        temperature: float > 0, T. Unitless.
        momentum: float in [0, 1), m.
        dim: int > 0.

    Raises:
        UserError: if an argument is out of range or num_examples is missing.

    Source: Tian, Krishnan, Isola, "Contrastive Representation Distillation", ICLR 2020,
        arXiv 1910.10699, equations 10 to 19, with eps, Z and the banks of its released
        code.
    Departs from the source: logarithms of o instead of o, the same numbers; the initial
        kernels are Keras' (Glorot uniform).

    Example:
        >>> CRD(num_examples=50_000).target_keys
        ('label', 'index', 'negatives')
    """

    tasks = ("classification",)

    default_weights = {"ce": 1.0, "crd": 0.8}
    label_use = "class"
    target_keys = ("label", "index", "negatives")

    def __init__(
        self,
        num_examples=0,
        num_negatives=16384,
        temperature=0.07,
        momentum=0.5,
        dim=128,
        **kwargs,
    ):
        super().__init__(**kwargs)
        ranges.check_at_least(1, num_negatives=num_negatives, dim=dim)
        ranges.check_positive(temperature=temperature)
        if not 0 <= momentum < 1:
            raise UserError(f"momentum must be in [0, 1), got {momentum}.")
        self.num_examples, self.num_negatives = num_examples, num_negatives
        self.temperature, self.momentum, self.dim = temperature, momentum, dim

    def output_pairs(self, student, teacher):
        """Pairs the deepest embeddings."""
        teacher_name = naming.deepest(teacher, "embedding", "teacher")
        return {naming.deepest(student, "embedding", "student"): (teacher_name,)}

    def build(self, student_shape, teacher_shape=None, targets_shape=None):
        """Makes a projection, a bank and ln Z for either network."""
        super().build(student_shape, teacher_shape, targets_shape)
        if self.num_examples < 1:
            self.fail(
                "keeps a vector of every example: give num_examples, the size of the "
                "training split (tf_mskd.train fills it in)."
            )
        ((name, (teacher_name,)),) = self.pairs.items()
        self.student_side = self._side("student", student_shape[name])
        self.teacher_side = self._side("teacher", teacher_shape[teacher_name])

    def _side(self, role, shape):
        project = keras.layers.Dense(
            self.dim, name=f"project_{role}", dtype=self.dtype_policy
        )
        project.build(shape)
        bound = math.sqrt(3 / self.dim)
        # no aggregation: every replica assigns its own copy the same values
        bank = self.add_weight(
            shape=(self.num_examples, self.dim),
            initializer=keras.initializers.RandomUniform(-bound, bound),
            trainable=False,
            name=f"bank_{role}",
        )
        log_z = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(UNSET),
            trainable=False,
            name=f"log_z_{role}",
        )
        return {"project": project, "bank": bank, "log_z": log_z}

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "crd/embedding_K": float32 [B]}; updates the banks."""
        terms = self.label_terms(student, targets)
        index = ops.cast(targets["index"], "int32")
        negatives = ops.cast(targets["negatives"], "int32")
        columns = ops.concatenate([index[:, None], negatives], axis=1)  # [B, 1 + K]
        sides = self.student_side, self.teacher_side
        for name, student_x, teacher_x in self.paired(student, teacher):
            student_x = losses.normalize(sides[0]["project"](student_x))
            teacher_x = sides[1]["project"](ops.stop_gradient(teacher_x))
            teacher_x = losses.normalize(teacher_x)
            banks = [ops.convert_to_tensor(side["bank"]) for side in sides]
            value = self._contrast(student_x, banks[1], columns, sides[0]["log_z"])
            value += self._contrast(teacher_x, banks[0], columns, sides[1]["log_z"])
            terms[f"crd/{name}"] = value
            everywhere = all_gather(index)
            sides[0]["bank"].assign(self._moved(banks[0], everywhere, student_x))
            sides[1]["bank"].assign(self._moved(banks[1], everywhere, teacher_x))
        return terms

    def _contrast(self, vectors, bank, columns, log_z):
        """The loss of each row against the other network's bank, [B]."""
        scores = ops.matmul(vectors, ops.transpose(bank)) / self.temperature  # [B, n]
        scores = ops.take_along_axis(scores, columns, axis=1)
        first = math.log(self.num_examples) + _log_mean_exp(scores)
        constant = ops.where(log_z > UNSET / 2, log_z, first)
        log_z.assign(constant)
        log_o = scores - constant
        q = self.num_negatives / self.num_examples
        own = ops.softplus(math.log(q + EPSILON) - log_o[:, 0])
        others = ops.softplus(log_o[:, 1:] - math.log(q + EPSILON))
        others = others + math.log((q + EPSILON) / q)
        return own + ops.sum(others, axis=1)

    def _moved(self, bank, index, vectors):
        """The bank with the rows of this step, of all replicas, moved."""
        old = ops.take(bank, index, axis=0)
        mixed = self.momentum * old + (1 - self.momentum) * all_gather(vectors)
        return ops.scatter_update(bank, index[:, None], losses.normalize(mixed))


def _log_mean_exp(scores):
    """ln of the mean of exp over the elements of all replicas; no gradient."""
    log_sums = all_gather(ops.logsumexp(ops.reshape(scores, (1, -1)), axis=1))
    count = ops.cast(ops.size(scores), "float32")
    return ops.logsumexp(log_sums) - ops.log(all_reduce_sum(count))
