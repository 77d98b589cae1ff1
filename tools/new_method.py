"""Scaffolds a distillation method: its file, its test, its flagfile.

    python tools/new_method.py my_method "what it does, in a few words"

The three files run as they are: a method that compares standardized logits.
Change the formula, then run the tests that the command prints.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[1]

METHOD = '''"""{title}: {what}."""

from keras import ops

from tf_mskd.methods import Method, losses, naming, ranges, register


@register("{name}")
class {title}(Method):
    """{What}.

    L = sum_k [CE(y, z_k) + mean_(b,n) |n(z_k) - n(t)|^power], n(z) = (z - mean z) /
    std z over the classes; z_k logits of student exit k and t of the teacher's last
    exit, [B, classes].

    Args:
        power: float > 0.

    Raises:
        UserError: if power is not positive.

    Source: authors, title, venue year, arXiv id, equation.
    Departs from the source: where and why, or "nothing known".

    Example:
        >>> {title}().default_weights
        {{'ce': 1.0, '{name}': 1.0}}
    """

    default_weights = {{"ce": 1.0, "{name}": 1.0}}

    def __init__(self, power=2.0, **kwargs):
        super().__init__(**kwargs)
        ranges.check_positive(power=power)
        self.power = power

    def output_pairs(self, student, teacher):
        """Pairs every student exit with the teacher's last one."""
        return naming.every_exit(student, teacher)

    def call(self, student, teacher, targets):
        """Returns {{"ce/exit_k", "{name}/exit_k": float32 [rows]}}."""
        terms = self.label_terms(student, targets)
        for name, student_x, teacher_x in self.paired(student, teacher):
            target = losses.standardize(ops.stop_gradient(teacher_x))
            gap = ops.abs(losses.standardize(student_x) - target)
            terms[f"{name}/{{name}}"] = ops.mean(gap**self.power, axis=-1)
        return terms
'''

TEST = '''"""{title}: known answers."""

import numpy as np
import pytest

from tests import reference
from tf_mskd import UserError
from tf_mskd.methods.common.create import create_method


def formula(z, t, power):
    """mean_n |n(z) - n(t)|^power of each row, float64."""
    n = [(x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True) for x in (z, t)]
    return (np.abs(n[0] - n[1]) ** power).mean(1)


def terms_of(z, t, **arguments):
    method = create_method("{name}", **arguments)
    return method({{"exit_2": z}}, {{"exit_2": t}}, {{"label": reference.LABELS % 2}})


def test_known_answer_by_hand():
    z, t = np.tile([[1.0, -1.0]], (4, 1)), np.tile([[-3.0, 3.0]], (4, 1))
    np.testing.assert_allclose(terms_of(z, t)["{name}/exit_2"], 4.0, 2e-5)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_agrees_with_the_formula(power):
    z, t = reference.STUDENT, reference.TEACHER
    got = terms_of(z, t, power=power)["{name}/exit_2"]
    np.testing.assert_allclose(got, formula(z, t, power), 2e-5)


def test_a_power_that_is_not_positive_is_refused():
    with pytest.raises(UserError, match="power must be > 0, got 0"):
        create_method("{name}", power=0)
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
        path.write_text(text.format(**values), encoding="utf-8")
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
        print(f"error: {error}")
        return 1
    for path in paths:
        print(f"wrote {path.relative_to(ROOT)}")
    print(f"then: python -m pytest tests/methods/test_{name}.py tests -k {name}")
    print("and:  python tools/make_docs.py")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
