"""Cross-entropy at every exit: plain training, and deep supervision."""

from tf_mskd.methods import Method, register


@register("ce")
class CE(Method):
    """Labels alone, at every exit the student has.

    L = sum_k w_k * mean_b CE(y, z_k),  z_k logits of exit k [B, classes], y labels [B].

    With one exit this is plain training; with several it is deep supervision, the
    baseline that shows what the exits do without a teacher.

    Source: Lee, Xie, Gallagher, Zhang, Tu, "Deeply-Supervised Nets", AISTATS 2015, for
        several exits. Departs from the source: cross-entropy instead of a hinge loss.
    """

    default_weights = {"ce": 1.0}
    needs_teacher = False

    def call(self, student, teacher, targets):
        """Returns {"ce/exit_k": float32 [B]} for every exit in `student`."""
        return self.label_terms(student, targets)
