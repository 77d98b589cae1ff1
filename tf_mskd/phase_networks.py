"""The parts of student and teacher that each phase of training computes."""

from tf_mskd.models.graph import detach_stages, exit_names, sub_model


class PhaseNetworks:
    """Cuts student and teacher to what a phase needs; the parts share their weights.

    Args:
        student: functional model with named exits.
        teacher: model of the same kind, or None.
        method: `Method`, which says what it reads of the teacher.
        phases: "joint", "progressive" or "detached".
    """

    def __init__(self, student, teacher, method, phases):
        self._student, self._teacher, self._method = student, teacher, method
        self._detached = detach_stages(student) if phases == "detached" else None
        self._parts = {}

    def teacher_reads(self, exits):
        """Names the teacher outputs that guide these student exits."""
        if self._teacher is None:
            return ()
        return self._method.teacher_reads(exits, exit_names(self._teacher))

    def student(self, exits):
        """The student to train these exits with, cut after the deepest one."""
        return self._detached or self.evaluation(exits)

    def evaluation(self, exits):
        """The student cut after the deepest of these exits."""
        if len(exits) == len(exit_names(self._student)):
            return self._student
        return self._part("student", self._student, exits)

    def teacher(self, exits):
        """The teacher cut to what guides these exits, or None if nothing does."""
        reads = self.teacher_reads(exits)
        return self._part("teacher", self._teacher, reads) if reads else None

    def _part(self, role, model, names):
        key = (role, *names)
        if key not in self._parts:
            self._parts[key] = sub_model(model, names)
        return self._parts[key]
