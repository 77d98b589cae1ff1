"""What SP, CC, RKD and PKT share: they compare the examples of a batch."""

from keras import ops

from tf_mskd.methods.common import naming
from tf_mskd.methods.common.method import Method


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
        ours = naming.deepest(student, self.reads, "student")
        return {ours: (naming.deepest(teacher, self.reads, "teacher"),)}

    def relate(self, ours, theirs):
        """Compares the relations of two outputs; subclasses define it.

        Args:
            ours: float32 [B, ...], the student's.
            theirs: float32 [B, ...], the teacher's, without gradient.

        Returns:
            dict, term -> float32 scalar; 0 for a batch of one.
        """
        raise TypeError(f"{type(self).__name__} defines no relate(); see Relational.")

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k": float32 [B]} and a scalar for each relation."""
        terms = self.label_terms(student, targets)
        for name, (guide,) in self.active_pairs(student):
            if student[name].shape[0] == 1:
                self.fail(
                    "compares examples with each other: use batches of 2 or more."
                )
            ours = ops.cast(ops.convert_to_tensor(student[name]), "float32")
            theirs = ops.cast(ops.convert_to_tensor(teacher[guide]), "float32")
            relations = self.relate(ours, ops.stop_gradient(theirs))
            terms.update((f"{term}/{name}", v) for term, v in relations.items())
        return terms
