"""What SP, CC, RKD and PKT share: they compare the examples of a batch."""

from keras import ops

from tf_mskd.methods.common import naming
from tf_mskd.methods.common.method import Method
from tf_mskd.utils.types import Tensor, Tensors


class Relational(Method):
    """Base of the methods whose student copies how the teacher's examples relate.

    The deepest output of one kind is read of both networks; subclasses say in `relate`
    what the relations are. Their terms compare the examples of the local batch with
    each other; on several replicas each sees its own part.

    Attributes:
        reads: str, kind of the output: "embedding" or "feature".

    Raises:
        UserError: for a batch of one example, where its size is known.
    """

    reads = "embedding"

    def output_pairs(self, student, teacher):
        """Pairs the deepest output of both networks."""
        teacher_name = naming.deepest(teacher, self.reads, "teacher")
        return {naming.deepest(student, self.reads, "student"): (teacher_name,)}

    def relate(self, student_x: Tensor, teacher_x: Tensor) -> Tensors:
        """Compares the relations of two outputs; subclasses define it.

        Args:
            student_x: float32 [B, ...], the student's.
            teacher_x: float32 [B, ...], the teacher's, without gradient.

        Returns:
            dict, term -> float32 scalar; 0 for a batch of one.
        """
        raise TypeError(f"{type(self).__name__} defines no relate(); see Relational.")

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k": float32 [B]} and a scalar for each relation."""
        terms = self.label_terms(student, targets)
        for name, student_x, teacher_x in self.paired(student, teacher):
            if student_x.shape[0] == 1:
                self.fail(
                    "compares examples with each other: use batches of 2 or more."
                )
            # mixed precision delivers float16, too coarse for sums over all pairs
            student_x = ops.cast(ops.convert_to_tensor(student_x), "float32")
            teacher_x = ops.cast(ops.convert_to_tensor(teacher_x), "float32")
            relations = self.relate(student_x, ops.stop_gradient(teacher_x))
            terms.update((f"{term}/{name}", v) for term, v in relations.items())
        return terms
