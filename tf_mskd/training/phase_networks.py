"""The parts of student and teacher that each phase of training computes."""

import typing

import keras

from tf_mskd.methods.common.method import Method
from tf_mskd.models.graph import (
    available_outputs,
    calls_to,
    detach_stages,
    exit_names,
    sub_model,
)
from tf_mskd.models.plain import as_student, as_teacher
from tf_mskd.tasks import Task
from tf_mskd.training.batch_norm import fold_batch_norms, fuse_batch_norms
from tf_mskd.utils.errors import UserError, unknown_name
from tf_mskd.utils.names import is_kind, number


class PhaseNetworks:
    """Cuts student and teacher to what a phase needs; the parts share their weights.

    Args:
        student: functional model with named exits.
        teacher: model of the same kind, or None.
        method: `Method`, whose `output_pairs` name what it reads of both.
        phases: "joint", "progressive" or "detached".

    Attributes:
        pairs: dict, student output -> tuple of teacher outputs, for all exits.

    Raises:
        UserError: if a network lacks what the method reads.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model | None,
        method: Method,
        phases: str,
    ):
        self._student, self._teacher = student, teacher
        self._exits = exit_names(student)
        self._tensors = available_outputs(student)
        of_teacher = [] if teacher is None else list(available_outputs(teacher))
        self.pairs = method.output_pairs(list(self._tensors), of_teacher)
        for name, teacher_names in self.pairs.items():
            _check_output("student", name, self._tensors)
            for teacher_name in teacher_names:
                _check_output("teacher", teacher_name, of_teacher)
        self._whole = detach_stages(student) if phases == "detached" else student
        self._parts = {}
        learns = method.trains_teacher
        self._faster = {"student": fuse_batch_norms}
        self._faster["teacher"] = fuse_batch_norms if learns else fold_batch_norms

    def student_reads(self, exits: list[str]) -> tuple[str, ...]:
        """Names what training with these exits computes: them, and what is read."""
        reads = [n for n in self.pairs if n not in self._exits]
        if len(exits) < len(self._exits):
            reads = [n for n in reads if self._reaches(n, exits)]
        return (*exits, *reads)

    def teacher_reads(self, exits: list[str]) -> tuple[str, ...]:
        """Names the teacher outputs that these exits' training reads."""
        reads = [self.pairs.get(n, ()) for n in self.student_reads(exits)]
        return tuple(dict.fromkeys(name for names in reads for name in names))

    def student(self, exits: list[str]) -> keras.Model:
        """Returns the student to train these exits with, cut after the deepest one."""
        return self._part("student", self._whole, self.student_reads(exits))

    def evaluation(self, exits: list[str]) -> keras.Model:
        """Returns the student cut after the deepest of these exits."""
        return self._part("evaluation", self._student, exits)

    def teacher(self, exits: list[str]) -> keras.Model | None:
        """Returns the teacher cut to what these exits' training reads, None without."""
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


def join_parts(
    student: keras.Model,
    teacher: typing.Any,
    method: Method,
    task: Task,
    teacher_size: typing.Any = None,
) -> tuple[keras.Model, keras.Model | None]:
    """Makes networks with exits of what was passed; refuses what does not fit.

    Args:
        student: see `plain.as_student`.
        teacher: see `plain.as_teacher`, or None.
        method: `Method`.
        task: `Task`.
        teacher_size: see `plain.as_teacher`.

    Returns:
        (student, teacher or None), each functional with a dict of exits.

    Raises:
        UserError: for networks that are no student or teacher, a missing teacher, other
            classes or inputs, shared variables, a student with nothing to train, or a
            method that needs the TensorFlow backend on another one.
    """
    student = as_student(student, task)
    if not student.trainable_variables:
        raise UserError(
            f"The student {student.name!r} has nothing to train: no trainable variable."
            " Set student.trainable = True, as a teacher's is set to False."
        )
    if teacher is not None:
        teacher = as_teacher(teacher, student, task, teacher_size)
        _check_pair(teacher, student)
    elif method.needs_teacher:
        name = getattr(method, "registry_name", method.name)
        raise UserError(f"Method {name!r} needs a teacher, got None.")
    elif teacher_size is not None:
        raise UserError(
            f"teacher_size={teacher_size} resizes images for a teacher, got None as "
            "teacher: leave teacher_size out."
        )
    backend = keras.backend.backend()
    if backend != "tensorflow" and (method.trains_teacher or method.changes_batch):
        method.fail(
            "changes the batch or trains the teacher, which needs the TensorFlow "
            f"backend; KERAS_BACKEND is {backend}."
        )
    return student, teacher


def _check_pair(teacher, student):
    _check_same("classes", *map(_answers, (teacher, student)), teacher, student)
    shapes = [_input_shapes(model) for model in (teacher, student)]
    if not _fits(*shapes):
        whats = ["image size" if len(s) == 1 else "inputs" for s in shapes]
        shapes = [s[0] if len(s) == 1 else s for s in shapes]
        _check_same(max(whats), *shapes, teacher, student)
    own = {id(variable) for variable in student.variables}
    shared = [v.path for v in teacher.variables if id(v) in own]
    if shared:
        raise UserError(
            f"Teacher and student share {len(shared)} variables, {shared[0]!r} among "
            "them, so the teacher would not rest: pass a copy as teacher, "
            "keras.models.clone_model(m) with set_weights(m.get_weights())."
        )


def _input_shapes(model):
    return [tuple(tensor.shape[1:]) for tensor in model.inputs]


def _fits(of_teacher, of_student):
    """Whether a teacher takes the student's inputs; None takes any size."""
    return len(of_teacher) == len(of_student) and all(
        len(wide) == len(narrow)
        and all(n in (None, m) for n, m in zip(wide, narrow, strict=True))
        for wide, narrow in zip(of_teacher, of_student, strict=True)
    )


def _check_same(what, of_teacher, of_student, teacher, student):
    if of_teacher != of_student:
        raise UserError(
            f"Teacher and student differ in {what}: teacher {teacher.name!r} has "
            f"{of_teacher}, student {student.name!r} has {of_student}"
            f"{_remedy(what, of_teacher, of_student)}"
        )


def _remedy(what, of_teacher, of_student):
    """The end of the sentence: what to do where only height and width differ."""
    if what != "image size" or len(of_teacher) != 3 or None in of_teacher:
        return "."
    if of_teacher[2:] != of_student[2:]:
        return "."
    height, width = of_teacher[:2]
    size = height if height == width else (height, width)
    return f": set teacher_size={size}, which resizes the images for the teacher."


def _answers(model):
    shape = tuple(model.output[exit_names(model)[-1]].shape[1:])
    return shape[0] if len(shape) == 1 else shape


def _check_output(role, name, known):
    if name not in known:
        raise unknown_name(f"output of the {role}", name, known)
