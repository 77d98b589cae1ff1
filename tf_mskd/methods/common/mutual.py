"""What DML and bilateral distillation share: student and teacher teach each other."""

from tf_mskd.methods.common import naming
from tf_mskd.methods.common.method import Method
from tf_mskd.methods.common.ranges import check_positive


class Mutual(Method):
    """Base of the methods in which both networks learn, in one step.

    With (z, t) the logits of a pair of exits [B, classes], paired from the deep end:
    L_S = sum_k CE(y, z_k) + w_S * sum_pairs KD_T(sg t, z),
    L_T = sum_pairs [w_TC * CE(y, t) + w_T * KD_T(sg z, t)], KD_T of
    `softmax.softened_kl`; means over the batch. The terms of both are one sum; as each
    stops gradients into the other network, each network gets the gradient of its own
    loss alone.

    The terms are "ce/exit_k" and "<method>/exit_k" for the student, and for the teacher
    "<method>_teacher_ce/exit_k" and "<method>_teacher/exit_k", where exit_k is the
    student's exit of the pair. Exits without partner: the student's learn from labels,
    the teacher's stay as they are.

    Args:
        temperature: float > 0, softens both sides.

    Raises:
        UserError: if the temperature is not positive.
    """

    trains_teacher = True
    label_use = "soft"

    def __init__(self, temperature, **kwargs):
        super().__init__(**kwargs)
        check_positive(temperature=temperature)
        self.temperature = temperature

    def output_pairs(self, student, teacher):
        """Pairs the exits of both networks, from the deep end."""
        return naming.from_deep_end(student, teacher, "exit")

    def call(self, student, teacher, targets):
        """Returns the terms of both networks, float32 [B]."""
        terms, start = self.label_terms(student, targets), self.registry_name
        for name, z, t in self.paired(student, teacher):
            label = self.label_loss(targets["label"], t)
            terms[f"{start}/{name}"] = self.task.imitation(t, z, self.temperature)
            terms[f"{start}_teacher_ce/{name}"] = label
            guided = self.task.imitation(z, t, self.temperature)
            terms[f"{start}_teacher/{name}"] = guided
        return terms
