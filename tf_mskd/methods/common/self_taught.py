"""What BYOT, DBT, EED and TSKD share: a student's exits teach each other."""

from keras import ops

from tf_mskd.methods.common import naming
from tf_mskd.methods.common.method import Method
from tf_mskd.utils.types import Tensor


class SelfTaught(Method):
    """Base of the methods in which deeper exits of a student teach shallower ones."""

    needs_teacher = False

    def exits_of(self, student: list[str]) -> list[str]:
        """The names of the exits, two or more, shallow to deep.

        Raises:
            UserError: if the student has one exit only.
        """
        exits = naming.numbered(student, "exit")
        if len(exits) < 2:
            self.fail(
                "lets exits of the student teach each other, the student has "
                f"{len(exits)} ({', '.join(exits)}): build it with exits='all'."
            )
        return exits

    def beside(self, kind: str, name: str, student: list[str]) -> str:
        """The output "kind_k" that belongs to "exit_k".

        Raises:
            UserError: if the student does not make it.
        """
        wanted = f"{kind}_{naming.number(name)}"
        if wanted not in student:
            self.fail(
                f"reads {wanted!r} of the student, which makes only "
                f"{', '.join(student)}: build it with tf_mskd.create_model."
            )
        return wanted


def soft_cross_entropy(
    target_logits: Tensor, logits: Tensor, temperature: Tensor
) -> Tensor:
    """Cross-entropy of softened distributions, without T squared.

    SCE_T[b] = -sum_n p[b, n] * ln q[b, n],
    p = softmax(sg target_logits / T), q = softmax(logits / T)

    Args:
        target_logits: float [B, classes], the teaching exit's; no gradient flows into
            it.
        logits: float [B, classes], the learning exit's.
        temperature: float > 0, or a scalar tensor.

    Returns:
        float32 [B], in nats; the entropy of p where the rows agree.

    Example:
        >>> sce = soft_cross_entropy([[0.0, 0.0]], [[0.0, 0.0]], temperature=3.0)
        >>> round(float(sce[0]), 4)  # ln 2
        0.6931
    """
    target = ops.cast(ops.convert_to_tensor(target_logits), "float32")
    logits = ops.cast(ops.convert_to_tensor(logits), "float32")
    p = ops.softmax(ops.stop_gradient(target) / temperature, axis=-1)
    return -ops.sum(p * ops.log_softmax(logits / temperature, axis=-1), axis=-1)
