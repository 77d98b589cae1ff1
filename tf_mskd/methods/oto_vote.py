"""OtO whose ensemble learns too: from labels and from the teacher's ensemble."""

from tf_mskd.methods import register
from tf_mskd.methods.oto import OtO


@register("oto_vote")
class OtOVote(OtO):
    """OtO, and the vote of the student's exits guided by the vote of the teacher's.

    L = L_OtO + w_vote_kd * KD_T(tbar, zbar) + w_vote_ce * CE(y, zbar), mean over the
    batch; zbar and tbar are the means of the paired exits' logits. The vote is what is
    deployed and the best guide that the teacher has, and OtO trains neither.

    The terms belong to the deepest exit, whose weight they share; in progressive
    training they begin with its phase.

    Args:
        preset: see `SoftTargets`; not "lskd".
        temperature: see `SoftTargets`; of the vote too.
        exit_map: see `OtO`.

    Raises:
        UserError: for a bad argument.

    Source: ours. docs/our_method.md tells how it was found. The weights of the vote are
        four times those of one exit.

    Example:
        >>> OtOVote().default_weights
        {'ce': 0.5, 'kd': 0.5, 'vote_ce': 2.0, 'vote_kd': 2.0}
    """

    def __init__(
        self,
        preset: str = "even",
        temperature: float | None = None,
        exit_map: str | dict[int, int] = "",
        **kwargs,
    ):
        super().__init__(preset, temperature, exit_map, **kwargs)
        if preset == "lskd":
            self.fail(
                "compares raw logits, preset=lskd standardised ones: take another "
                "preset, or 'oto'."
            )
        weights = {f"vote_{name}": 4 * w for name, w in self.default_weights.items()}
        self.default_weights = {**self.default_weights, **weights}

    def call(self, student, teacher, targets):
        """Returns {"ce", "kd" of every exit, "vote_ce", "vote_kd" of the deepest}."""
        terms = super().call(student, teacher, targets)
        paired = list(self.paired(student, teacher))
        if len(paired) < len(self.pairs):
            return terms
        deepest = paired[-1][0]
        vote = self.task.vote({name: own for name, own, _ in paired})
        guide = self.task.vote({name: other for name, _, other in paired})
        for name, value in self.label_terms({deepest: vote}, targets).items():
            terms[f"vote_{name}"] = value
        kd = self.task.imitation(guide, vote, self.temperature)
        terms[f"vote_kd/{deepest}"] = kd
        return terms
