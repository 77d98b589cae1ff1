"""OtO: exit k of a multi-exit teacher guides exit k of the student."""

from tf_mskd.methods import naming, register
from tf_mskd.methods.common.soft_targets import SoftTargets
from tf_mskd.utils.errors import UserError


@register("oto")
class OtO(SoftTargets):
    """One-to-one multiple-stage distillation.

    L = sum_k w_k * [w_kd * KD_T(t_k, z_k) + w_ce * CE(y, z_k)], mean over the batch;
    z_k and t_k logits of student and teacher exit k [B, classes], y labels [B].

    Networks with unequal numbers of stages are aligned from the deep end: the last exit
    guides the last, the second last the second last.

    Args:
        preset: see `SoftTargets`.
        temperature: see `SoftTargets`.
        exit_map: str "student:teacher,..." of exit numbers such as "1:2,2:3,3:4", or
            a dict of int, or None for the alignment from the deep end.

    Raises:
        UserError: if the map cannot be read, names an exit that a network does not
            have, or has no entry for a student exit.

    Source: Xu et al., Applied Sciences 12(19):9453 (2022), section on OtO.
    Reconstruction: the pairing is documented; weights, T and the treatment of unequal
        numbers of exits are inferred.

    Example:
        >>> OtO(exit_map="1:2").output_pairs(["exit_1"], ["exit_2", "exit_3"])
        {'exit_1': ('exit_2',)}
    """

    def __init__(
        self,
        preset: str = "repdistiller",
        temperature: float | None = None,
        exit_map: str | dict[int, int] = "",
        **kwargs,
    ):
        super().__init__(preset, temperature, **kwargs)
        self.exit_map = read_exit_map(exit_map)

    def output_pairs(self, student, teacher):
        """Pairs every student exit with its own teacher exit."""
        student = naming.numbered(student, "exit")
        teacher = naming.numbered(teacher, "exit")
        shift = naming.number(teacher[-1]) - naming.number(student[-1])
        numbers = {name: naming.number(name) for name in student}
        extra = sorted(set(self.exit_map) - set(numbers.values()))
        if extra:
            raise UserError(
                f"exit_map names student exit {extra[0]}, the student has "
                f"{', '.join(student)}: remove that entry."
            )
        pairs = {}
        for name, number in numbers.items():
            if self.exit_map and number not in self.exit_map:
                raise UserError(
                    f"exit_map has no entry for student {name}: map every student exit "
                    f"({', '.join(student)}) as student:teacher."
                )
            teacher_exit = f"exit_{self.exit_map.get(number, number + shift)}"
            if teacher_exit not in teacher:
                raise UserError(
                    f"Student {name} needs {teacher_exit} of the teacher, which has "
                    f"{', '.join(teacher)}: build the teacher with that exit or set "
                    "exit_map=student:teacher,..., such as 1:1,2:1,3:2."
                )
            pairs[name] = (teacher_exit,)
        return pairs


def read_exit_map(value):
    """Reads "1:2,2:3" (or a dict) into a dict, student exit -> teacher exit."""
    pairs = value or {}
    try:
        if isinstance(pairs, str):
            pairs = dict(pair.split(":") for pair in pairs.split(","))
        return {int(s): int(t) for s, t in pairs.items()}  # JSON makes keys text
    except ValueError:
        raise UserError(
            f"exit_map must look like 1:2,2:3 (student:teacher), got {value!r}."
        ) from None
