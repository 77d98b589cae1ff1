"""The parts of student and teacher that each phase of training computes."""

from tf_mskd.models.graph import (
    available_outputs,
    calls_to,
    detach_stages,
    exit_names,
    sub_model,
)
from tf_mskd.training.batch_norm import fold_batch_norms, fuse_batch_norms
from tf_mskd.utils.errors import unknown_name
from tf_mskd.utils.names import is_kind, number


class PhaseNetworks:
    """Cuts student and teacher to what a phase needs; the parts share their weights.

    Args:
        student: functional model with named exits.
        teacher: model of the same kind, or None.
        method: `Method`, which says what it reads of both.
        phases: "joint", "progressive" or "detached".

    Attributes:
        guides: dict, student output -> tuple of teacher outputs, for all exits.

    Raises:
        UserError: if a network lacks what the method reads.
    """

    def __init__(self, student, teacher, method, phases):
        self._student, self._teacher = student, teacher
        self._exits = exit_names(student)
        self._tensors = available_outputs(student)
        theirs = [] if teacher is None else list(available_outputs(teacher))
        self.guides = method.output_pairs(list(self._tensors), theirs)
        for name, guides in self.guides.items():
            _check("student", name, self._tensors)
            for guide in guides:
                _check("teacher", guide, theirs)
        self._whole = detach_stages(student) if phases == "detached" else student
        self._parts = {}
        learns = method.trains_teacher
        self._faster = {"student": fuse_batch_norms}
        self._faster["teacher"] = fuse_batch_norms if learns else fold_batch_norms

    def student_reads(self, exits):
        """Names what training with these exits computes: them, and what is read."""
        reads = [n for n in self.guides if n not in self._exits]
        if len(exits) < len(self._exits):
            reads = [n for n in reads if self._reaches(n, exits)]
        return (*exits, *reads)

    def teacher_reads(self, exits):
        """Names the teacher outputs that guide what these exits' training computes."""
        reads = [self.guides.get(n, ()) for n in self.student_reads(exits)]
        return tuple(dict.fromkeys(name for names in reads for name in names))

    def student(self, exits):
        """The student to train these exits with, cut after the deepest one."""
        return self._part("student", self._whole, self.student_reads(exits))

    def evaluation(self, exits):
        """The student cut after the deepest of these exits."""
        return self._part("evaluation", self._student, exits)

    def teacher(self, exits):
        """The teacher cut to what guides these exits, or None if nothing does."""
        reads = self.teacher_reads(exits)
        return self._part("teacher", self._teacher, reads) if reads else None

    def _reaches(self, name, exits):
        """Whether an output needs no stage deeper than these exits."""
        last = number(exits[-1])
        needs = (call.operation.name for call in calls_to([self._tensors[name]]))
        return all(number(n) <= last for n in needs if is_kind(n, "feature"))

    def _part(self, role, model, names):
        key = (role, *names)
        if key not in self._parts:
            whole = list(model.output) == list(names)
            part = model if whole else sub_model(model, names)
            self._parts[key] = self._faster.get(role, lambda part: part)(part)
        return self._parts[key]


def _check(role, name, known):
    if name not in known:
        raise unknown_name(f"output of the {role}", name, known)
