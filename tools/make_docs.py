"""Writes docs/methods.md from the docstrings of the methods and the measured costs.

python tools/make_docs.py            write it
python tools/make_docs.py --check    only say whether it would change
"""

import inspect
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

DOCUMENT = ROOT / "docs" / "methods.md"
COSTS = ROOT / "results" / "benchmark" / "methods.json"
HEAD = """# Methods

Written by `python tools/make_docs.py` from the docstrings in `tf_mskd/methods/`; each
name is what `--method=` takes, and several with commas between add their terms
(`--method=kd,at`). A term with weight v enters the loss as v times its mean over the
batch; `--term_weights=at:500` sets another weight. "Local" methods compare the examples
of a batch with each other: on several devices each sees its own part of the batch.

Batch norms are Keras': a moving variance is of the biased variance of the batch, where
PyTorch's is of the unbiased one (0.1 % more at batch 64 of 4x4 maps).

"Step" is the time of a training step relative to KD's with the same exits, ResNet-18 to
ResNet-10, batch 64 of 32x32 images, {machine} (`python tools/benchmark.py
--parts=methods`). Methods with further passes through a network (views, noise, two
networks that learn) cost what these cost; `ft` pays for the convolutions of its
translator and of the paraphraser, a fifth of the multiply-accumulates of KD's step.
"""


def first_paragraph(text):
    """The first paragraph of a docstring, on one line."""
    return " ".join(text.split("\n\n")[0].split())


def needs(method):
    """What a method asks for beside student and labels, in words."""
    words = []
    if method.needs_teacher:
        words.append("learning teacher" if method.trains_teacher else "teacher")
    words += [f"{kind} heads" for kind in method.aux_heads]
    words += [key for key in method.target_keys if key not in ("label", "index")]
    if method.rows_per_image > 1:
        words.append(f"{method.rows_per_image} rows an image")
    if method.teacher_view:
        words.append("a view of its own for the teacher")
    return ", ".join(words) or "nothing"


def weights(method):
    """The default weights of a method's terms."""
    return ", ".join(
        f"{name} {value:g}" for name, value in method.default_weights.items()
    )


def document():
    """Returns the text of docs/methods.md."""
    from tf_mskd.methods.common import registry
    from tf_mskd.methods.common.create import create_method, method_defaults

    costs = json.loads(COSTS.read_text(encoding="utf-8")) if COSTS.exists() else {}
    steps = costs.get("of_kd", {})
    lines = [HEAD.format(machine=costs.get("machine", "not measured yet"))]
    lines.append("| method | what it is | weights | needs | origin | local | step |")
    lines.append("|---|---|---|---|---|---|---|")
    sections = []
    for name in registry.available_methods():
        cls = registry.method_class(name)
        method, text = create_method(name), inspect.getdoc(cls)
        origin = "reconstruction" if "Reconstruction:" in text else "published"
        origin = "ours" if "Source: ours." in text else origin
        local = "yes" if "local" in text else ""
        step = f"{steps[name]:.2f}" if name in steps else ""
        row = [f"[{name}](#{name})", first_paragraph(text), weights(method)]
        lines.append(f"| {' | '.join([*row, needs(method), origin, local, step])} |")
        flagfile = f"configs/methods/{name}.flags"
        arguments = ", ".join(
            f"{key}={value!r}" for key, value in method_defaults(name).items()
        )
        body = text.split("\n\nExample:")[0]
        facts = f"Flagfile `{flagfile}`; arguments: {arguments or 'none'}."
        sections.append(f"## {name}\n\n{facts}\n\n```text\n{body}\n```\n")
    return "\n".join(lines) + "\n\n" + "\n".join(sections)


def main(arguments):
    """Writes the document, or with --check says whether it differs."""
    text = document()
    same = DOCUMENT.exists() and DOCUMENT.read_text(encoding="utf-8") == text
    if "--check" in arguments:
        print("docs/methods.md is up to date" if same else "docs/methods.md differs")
        return int(not same)
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
