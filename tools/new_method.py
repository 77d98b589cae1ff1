"""Scaffolds a distillation method: its file, its test, its flagfile.

    python tools/new_method.py my_method "what it does, in a few words"

The three files run as they are: a method that regresses the teacher's pooled vector.
Change the formula, then run the tests that the command prints.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[1]

METHOD = '''"""{title}: {what}."""

from keras import ops

from tf_mskd.methods import naming
from tf_mskd.methods.base import Method
from tf_mskd.ops import normalize
from tf_mskd.registry import register


@register("{name}")
class {title}(Method):
    """{What}.

    L = sum_k CE(y, z_k) + mean_b ||nrm(v_s) - nrm(v_t)||^2,
    z_k logits of exit k [B, classes]; v pooled vectors before the last exit [B, D].

    Source: authors, title, venue year, arXiv id, equation.
    Departs from the source: where and why, or "nothing known".

    Example:
        >>> {title}().default_weights
        {{'ce': 1.0, '{name}': 1.0}}
    """

    default_weights = {{"ce": 1.0, "{name}": 1.0}}

    def guides(self, student, teacher):
        """Pairs the vectors before the last exits."""
        guide = naming.deepest(teacher, "embedding", "teacher")
        return {{naming.deepest(student, "embedding", "student"): (guide,)}}

    def build(self, student_shape, teacher_shape=None, targets_shape=None):
        """Refuses vectors of unequal width."""
        super().build(student_shape, teacher_shape, targets_shape)
        for name, (guide,) in self.pairs.items():
            ours, theirs = student_shape[name][-1], teacher_shape[guide][-1]
            if ours != theirs:
                self.fail(f"compares vectors of one width, got {{ours}} and {{theirs}}.")

    def call(self, student, teacher, targets):
        """Returns {{"ce/exit_k", "{name}/embedding_k": float32 [rows]}}."""
        terms = self.label_terms(student, targets)
        for name, (guide,) in self.active_pairs(student):
            gap = normalize(student[name]) - ops.stop_gradient(normalize(teacher[guide]))
            terms[f"{name}/{{name}}"] = ops.sum(ops.square(gap), axis=-1)
        return terms
'''  # noqa: E501

TEST = '''"""{title}: known answers."""

import numpy as np
import pytest

from tests import reference
from tf_mskd import UserError, registry


def formula(v_s, v_t):
    """||nrm(v_s) - nrm(v_t)||^2 of each row, float64."""
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (v_s, v_t)]
    return np.sum((unit[0] - unit[1]) ** 2, axis=1)


def terms_of(v_s, v_t):
    student = {{"exit_2": reference.STUDENT, "embedding_2": v_s}}
    method = registry.create_method("{name}")
    return method(student, {{"embedding_2": v_t}}, {{"label": reference.LABELS}})


def test_known_answer_by_hand():
    v_s, v_t = np.tile([[1.0, 0.0]], (4, 1)), np.tile([[0.0, 1.0]], (4, 1))
    np.testing.assert_allclose(terms_of(v_s, v_t)["{name}/embedding_2"], 2.0, 2e-5)


def test_agrees_with_the_formula():
    rng = np.random.default_rng(0)
    v_s, v_t = rng.normal(size=(2, 4, 6))
    got = terms_of(v_s, v_t)["{name}/embedding_2"]
    np.testing.assert_allclose(got, formula(v_s, v_t), 2e-5)


def test_vectors_of_unequal_width_are_refused():
    with pytest.raises(UserError, match="'{name}' compares vectors of one width"):
        terms_of(np.ones((4, 3)), np.ones((4, 5)))
'''

FLAGS = """# {title}: {what}.
# Run: python -m tf_mskd.train --flagfile=configs/digits/pair.flags --flagfile=configs/methods/{name}.flags --run_dir=runs/digits/{name}
--method={name}
"""  # noqa: E501


def scaffold(root, name, what):
    """Writes the three files; returns their paths.

    Raises:
        ValueError: if the name is no lower-case identifier or taken.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"A method's name is lower-case letters, digits, _: {name!r}.")
    title = "".join(part.capitalize() for part in name.split("_"))
    texts = {
        root / "tf_mskd" / "methods" / f"{name}.py": METHOD,
        root / "tests" / "methods" / f"test_{name}.py": TEST,
        root / "configs" / "methods" / f"{name}.flags": FLAGS,
    }
    for path in texts:
        if path.exists():
            raise ValueError(f"{path.relative_to(root)} exists: choose another name.")
    values = {"name": name, "title": title, "what": what}
    values["What"] = what[:1].upper() + what[1:]
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(**values))
    return list(texts)


def main(arguments):
    """Scaffolds and says what to do next; returns the exit status."""
    if not 1 <= len(arguments) <= 2 or arguments[0].startswith("-"):
        print(__doc__.strip())
        return 2
    name, what = arguments[0], (arguments[1:] or ["what it does"])[0].strip(" .")
    try:
        paths = scaffold(ROOT, name, what)
    except ValueError as error:
        print(f"Error: {error}")
        return 1
    for path in paths:
        print(f"wrote {path.relative_to(ROOT)}")
    print(f"then: python -m pytest tests/methods/test_{name}.py tests -k {name}")
    print("and:  python tools/make_docs.py")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
