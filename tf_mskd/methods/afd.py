"""AFD: attention learns which blocks of the student follow which of the teacher's."""

import keras
from keras import ops

from tf_mskd.methods import Method, losses, naming, ranges, register


@register("afd")
class AFD(Method):
    """Attention-based feature distillation between all blocks of both networks.

    L = sum_k [ CE(y, z_k) + 0.9 * KD_T(t, z_k) ] + 200 * mean_b sum_{s,j} a[b, j, s] *
    mean_i (U_s[b, i] - U_j[b, i])^2, z_k student exits, t the teacher's last logits;
    s over the S blocks of the student, j over the J blocks of the teacher;
    U(F) = nrm(flatten(mean_c F^2)), the student's mean pooled (or repeated) to the
    height and width of block j before it is normalised;
    a[b, j, :] = softmax_s( (B(k_s)_j . q_j + P_j . P_s) / sqrt(d) ),
    q_j = BN(linear(GAP F_j)), k_s = ReLU(BN(linear(GAP F_s))), each [B, d];
    B = BN(linear(d -> J * d)) over the keys of all blocks; P learnt codes [d] of each
    block. Attention learns with the student. The batch norms use the statistics of the
    batch; on several replicas, of its local part.

    Args:
        dim: int > 0, width d of queries and keys.
        every: int > 0, takes every n-th block of both networks, counted from the
            deepest; the source has 2 for ResNet-110.
        temperature: float > 0 of the term "kd". Unitless.

    Raises:
        UserError: if an argument is out of range, or a network has no block or stage.

    Source: Ji, Heo, Park, "Show, Attend and Distill", AAAI 2021, arXiv 2102.02973,
        equations 3 to 7, with the weights of its released code.
    Departs from the source: all exits of a multi-exit student have the term "kd"; the
        initial kernels are Keras' (Glorot uniform).

    Example:
        >>> names = ["block_1", "block_2", "block_3", "exit_1"]
        >>> AFD(every=2).output_pairs(names, names)["block_1"]
        ('block_1', 'block_3')
    """

    default_weights = {"ce": 1.0, "kd": 0.9, "afd": 200.0}

    def __init__(self, dim=128, every=1, temperature=4.0, **kwargs):
        super().__init__(**kwargs)
        ranges.check_at_least(1, dim=dim, every=every)
        ranges.check_positive(temperature=temperature)
        self.dim, self.every, self.temperature = dim, every, temperature

    def output_pairs(self, student, teacher):
        """Guides each block by all blocks of the teacher, and each exit by its last."""
        last = naming.deepest(teacher, "exit", "teacher")
        blocks = tuple(self._blocks(teacher, "teacher"))
        pairs = {name: (last,) for name in naming.numbered(student, "exit")}
        return pairs | {name: blocks for name in self._blocks(student, "student")}

    def _blocks(self, names, role):
        last = naming.number(naming.deepest(names, "block", role))
        blocks = naming.numbered(names, "block")
        return [n for n in blocks if (last - naming.number(n)) % self.every == 0]

    def build(self, student_shape, teacher_shape=None, targets_shape=None):
        """Makes the projections of every block, and the codes."""
        super().build(student_shape, teacher_shape, targets_shape)
        self.student_blocks = naming.numbered(self.pairs, "block")
        self.teacher_blocks = self.pairs[self.student_blocks[0]]
        self.queries = self._projections(self.teacher_blocks, teacher_shape, "query")
        self.keys = self._projections(self.student_blocks, student_shape, "key")
        width = len(self.teacher_blocks) * self.dim
        self.bilinear = Projection(width, self.dim, "bilinear", self.dtype_policy)
        blocks = {"student": self.student_blocks, "teacher": self.teacher_blocks}
        for role, names in blocks.items():
            codes = self.add_weight(
                shape=(len(names), self.dim),
                initializer="glorot_normal",
                name=f"codes_{role}",
            )
            setattr(self, f"codes_{role}", codes)

    def _projections(self, names, shapes, kind):
        return [
            Projection(self.dim, shapes[n][-1], f"{kind}_{n}", self.dtype_policy)
            for n in names
        ]

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k", "kd/exit_k", "afd/blocks": float32 [B]}."""
        terms = self.label_terms(student, targets)
        for name in naming.numbered(student, "exit"):
            target = teacher[self.pairs[name][0]]
            kd = self.task.imitation(target, student[name], self.temperature)
            terms[f"kd/{name}"] = kd
        active = [s for s, name in enumerate(self.student_blocks) if name in student]
        if not active:
            return terms
        maps = [student[self.student_blocks[s]] for s in active]
        targets = [ops.stop_gradient(teacher[name]) for name in self.teacher_blocks]
        attended = self._attend(active, maps, targets)  # [B, J, S]
        total, pooled = 0.0, {}
        for j, target in enumerate(targets):
            size = tuple(target.shape[1:3])
            if size not in pooled:
                pooled[size] = ops.stack([energy(x, size) for x in maps], axis=1)
            gap = pooled[size] - losses.attention(target)[:, None]  # [B, S, H * W]
            gap = ops.mean(ops.square(gap), axis=-1)
            total += ops.sum(attended[:, j] * gap, axis=1)
        return {**terms, "afd/blocks": total}

    def _attend(self, active, maps, targets):
        """How much of each teacher block each student block takes, [B, J, S]."""
        queries = [p(x) for p, x in zip(self.queries, targets, strict=True)]
        queries = ops.stack(queries, axis=1)  # [B, J, d]
        keys = [ops.relu(self.keys[s](x)) for s, x in zip(active, maps, strict=True)]
        keys = self.bilinear(ops.concatenate(keys, axis=0))  # [S * B, J * d]
        shape = (len(active), -1, len(targets), self.dim)
        keys = ops.reshape(keys, shape)  # [S, B, J, d]
        scores = ops.einsum("sbjd,bjd->bjs", keys, queries)
        codes = ops.take(ops.convert_to_tensor(self.codes_student), active, axis=0)
        scores += ops.matmul(self.codes_teacher, ops.transpose(codes))
        # not softmax, which warns where a phase has one block
        return ops.exp(ops.log_softmax(scores / self.dim**0.5, axis=-1))


class Projection(keras.layers.Layer):
    """Global average pooling where there is a map, linear layer, batch norm.

    Call with float [B, H, W, C] or [B, C]; returns [B, width].
    """

    def __init__(self, width, inputs, name, dtype):
        super().__init__(name=name, dtype=dtype)
        self.dense = keras.layers.Dense(width, name="dense", dtype=dtype)
        self.norm = keras.layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, name="norm", dtype=dtype
        )
        self.dense.build((None, inputs))
        self.norm.build((None, width))
        self.built = True

    def call(self, x):
        """Returns [B, width]."""
        if len(x.shape) == 4:
            x = ops.mean(x, axis=(1, 2))
        return self.norm(self.dense(x), training=True)


def energy(x, size):
    """Where a map is active, at another size: unit vectors.

    Args:
        x: float [B, H, W, C].
        size: tuple of two int, pooled or repeated to.

    Returns:
        float32 [B, size[0] * size[1]].
    """
    if tuple(x.shape[1:3]) == size:
        return losses.attention(x)
    x = ops.mean(ops.square(ops.cast(x, "float32")), axis=-1, keepdims=True)
    x = losses.average_pool(x, size)
    return losses.normalize(ops.reshape(x, (-1, size[0] * size[1])))
