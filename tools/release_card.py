"""README.md of a release: the card of its networks, as model hubs read it."""

import json

from tf_mskd.runs.config import changed
from tf_mskd.runs.flags import to_flagfile
from tf_mskd.runs.own_model import kind_of
from tf_mskd.runs.report_tables import Report, as_markdown, sections
from tf_mskd.runs.seeds import group_seeds
from tf_mskd.utils.tables import as_text
from tf_mskd.utils.units import PERCENT, shown
from tools.release_files import SUMS
from tools.release_networks import Network

LICENCES = (  # as hubs write them; others are named there as "other"
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "mpl-2.0", "cc0-1.0"),
    *("cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0"),
    *("gpl-3.0", "lgpl-3.0", "agpl-3.0", "openrail"),
)
PIPELINES = {  # tasks of hubs
    "classification": "image-classification",
    "multi_label": "image-classification",
    "binary": "image-classification",
    "segmentation": "image-segmentation",
    "restoration": "image-to-image",
    "hashing": "image-feature-extraction",
}
OWN_DATA = ("folder", "pairs")  # of the user; no data set that hubs know
COLOURS = {1: "grey", 3: "RGB"}
FILES = """\
| file of a run | what |
| --- | --- |
| `student.keras` | the network after the last epoch, architecture and weights |
| `result.json` | figures, parameters, multiply-accumulates (MACs) |
| `metrics.jsonl` | the training, one JSON object an epoch |
| `flags.txt` | every setting of the training |
| `run.json` | versions and machine |"""
DATA_NOTE = "The data have a licence of their own, which this one does not replace."


def card(
    networks: dict[str, Network],
    classes: dict[str, tuple[str, ...]],
    title: str,
    licence: str,
    data_note: str,
) -> str:
    """Returns the text of README.md.

    Args:
        networks: of `release_networks.read_networks`.
        classes: of `release_networks.class_names`.
        title: one line.
        licence: identifier of the licence of the weights.
        data_note: what is told of the licence of the data; "" for a general sentence.
    """
    runs = {name: network.run for name, network in networks.items()}
    grouped = group_seeds(runs)
    rows = {
        name: [networks[single.folder.name] for single in row.single]
        for name, row in grouped.items()
    }
    # the last epoch is what is released, not the best one
    last, *_, deployed = sections(Report(runs, grouped))
    parts = [
        _front_matter(networks, licence),
        f"# {title}",
        _about(networks),
        f"## Networks\n\n{_networks(rows, networks)}",
        as_markdown([deployed, last]),
        f"## How to load\n\n{_loading(networks)}",
        f"## Data\n\n{_data(rows, classes)}",
        f"## Recipes\n\n{_recipes(rows)}",
        f"## Limits\n\n{_limits(grouped)}",
        f"## Licence\n\nWeights and this card: {licence}. {data_note or DATA_NOTE}",
        f"## Files\n\n{FILES}\n\n`sha256sum -c {SUMS}` checks them all.",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(networks, licence):
    configs = [network.config for network in networks.values()]
    known, name = licence.lower() in LICENCES, licence.lower()
    lines = [f"license: {name}"] if known else ["license: other"]
    lines += [] if known else [f"license_name: {json.dumps(name)}"]
    lines.append("library_name: keras")
    tasks = _once(config.task for config in configs)
    lines += [f"pipeline_tag: {PIPELINES[task]}" for task in tasks[:1]]
    several = any(len(network.exits) > 1 for network in networks.values())
    exits = ["multi-exit", "early-exit"] if several else []
    lists = {
        "tags": ["keras", "tf_mskd", "knowledge-distillation", *exits],
        "datasets": _once(c.dataset for c in configs if c.dataset not in OWN_DATA),
        "metrics": _once(n.run.result.metric for n in networks.values()),
    }
    for key, values in lists.items():
        lines += [f"{key}:", *(f"- {json.dumps(v)}" for v in values)] if values else []
    return "\n".join(["---", *lines, "---"])


def _about(networks):
    configs = [network.config for network in networks.values()]
    tasks, sets = (_once(getattr(c, n) for c in configs) for n in ("task", "dataset"))
    what = "A network" if len(networks) == 1 else f"{len(networks)} networks"
    versions = _once(
        f"{package} {network.record.get('versions', {}).get(package, '?')}"
        for package in ("tf_mskd", "keras", "tensorflow")
        for network in networks.values()
    )
    return (
        f"{what} for {' and '.join(tasks).replace('_', ' ')} on {', '.join(sets)}, "
        f"trained with {', '.join(versions)}. Each folder is a training run; an exit "
        "is an output at some depth of the network, exit 1 the shallowest."
    )


def _networks(rows, networks):
    names = {network.fingerprint: name for name, network in networks.items()}
    header = ["run", "network", "width", "exits", "image", "outputs", "method"]
    table = [[*header, "epochs", "seeds", "teacher", "starts from"]]
    for row, members in rows.items():
        network = members[0]
        config = network.config
        width = f"{config.width:g}" if kind_of(config.model) == "name" else ""
        table.append(
            [
                row,
                config.model,
                width,
                ", ".join(name.removeprefix("exit_") for name in network.exits),
                "x".join(str(side or "any") for side in network.image),
                str(network.outputs),
                config.method,
                str(config.epochs),
                ", ".join(str(member.config.seed) for member in members),
                *(_other(members, role, names) for role in ("teacher", "init")),
            ]
        )
    note = (
        "Width multiplies the channels of the network. The method trains it from its "
        "teacher, or from labels alone (`ce`). A network that starts from another one "
        "has its weights at first."
    )
    return f"{note}\n\n{as_text(table)}"


def _other(members, role, names):
    """The networks that those of a row learned or started from."""
    found = []
    for member in members:
        known = member.fingerprint_of(role)
        kind = member.run.result.teacher if role == "teacher" else None
        if known or kind:
            found.append(names.get(known) or f"{kind or 'another'} (not released)")
    return ", ".join(_once(found))


def _loading(networks):
    name, network = next(iter(networks.items()))
    shape = (1, *(side or 32 for side in network.image))
    last, task = network.exits[-1], network.config.task
    answers = "of each exit, by name"
    end = ".argmax(-1)" if task in ("classification", "segmentation") else ".shape"
    colours = COLOURS.get(shape[-1], "")
    code = f"""\
import numpy as np
import tf_mskd

student = tf_mskd.load_model("{name}")  # a folder beside this card
images = np.zeros({shape}, np.uint8)  # your {colours} pixels, 0 to 255
answers = student.predict(images, verbose=0)  # {answers}
print(answers["{last}"]{end})"""
    texts = [f"```python\n{code}\n```", "The network scales the pixels itself."]
    if task != "restoration":
        texts[1] += " Exits give logits."
    own = sorted(network.packages - {"keras", "tf_mskd"})
    if own:
        texts.append(f"It has layers of `{'`, `'.join(own)}`: import them before.")
    elif network.packages == {"keras"}:
        path = f'"{name}/student.keras", compile=False'
        texts.append(f"Keras alone reads it too: `keras.saving.load_model({path})`.")
    texts.append(
        f"`python -m tf_mskd.evaluate --run_dir={name} --data_dir=DATA` measures it "
        "again, with the data in DATA (`python -m tf_mskd.data.prepare --help`)."
    )
    return "\n\n".join(texts)


def _data(rows, classes):
    told = {}
    for row, members in rows.items():
        config, result = members[0].config, members[0].run.result
        text = f"{config.dataset}, {result.train_examples:,} images to train on"
        steps = [step for step in config.augment if step != "none"]
        text += f", augmented by {', '.join(steps)}" if steps else ", not augmented"
        if config.validation_fraction:
            held = f"{100 * config.validation_fraction:g} %"
            text += f"; {held} of the training split held out, drawn by the seed"
        told.setdefault(text, []).append(f"`{row}`")
    lines = [f"- {', '.join(names)}: {text}." for text, names in told.items()]
    kinds = _once(members[0].config.ensemble for members in rows.values())
    texts = [
        "\n".join(lines),
        "Figures are of the test split after the last epoch. The ensemble is the mean "
        f"of the {' or '.join(kinds)} of all exits (fitted: weighted by what is held "
        "out).",
    ]
    for name, labels in classes.items():
        order = f"are those of {name} in the order of its labels"
        if labels:
            order = f"of {name}, " + ", ".join(
                f"{k}: {n}" for k, n in enumerate(labels)
            )
        texts.append(f"Classes {order}.")
    return "\n\n".join(texts)


def _recipes(rows):
    texts = [
        "The settings that are not the defaults of the version above; `flags.txt` has "
        "all. With the lines of a run as the file `own.flags`, this trains it again, "
        "and first what it needs, such as a teacher (paths are those of this folder):",
        "```\npython -m tf_mskd.train --flagfile=own.flags --seed=0 --data_dir=DATA "
        "--run_dir=RUN\n```",
    ]
    for row, members in rows.items():
        config = members[0].config
        kept = {f"--{name}" for name in changed(config)} - {"--run_dir", "--seed"}
        lines = to_flagfile(config).splitlines()
        lines = [line for line in lines if line.partition("=")[0] in kept]
        texts.append("\n".join([f"`{row}`:", "", "```", *lines, "```"]))
    return "\n\n".join(texts)


def _limits(rows):
    results = {name: row.result for name, row in rows.items()}
    sets = ", ".join(_once(row.config.dataset for row in rows.values()))
    lines = [
        f"Trained on {sets} alone and measured on nothing else: not for other images, "
        "and not for decisions that matter to anyone."
    ]
    figures = {name: r.test[rows[name].main] for name, r in results.items()}
    best = max(figures, key=figures.__getitem__)
    unit, metric = results[best].unit, results[best].metric
    line = f"Small networks: the best {metric} here is {shown(figures[best], unit)}"
    if metric == "accuracy" and unit == PERCENT:
        line += f", so {shown(1 - figures[best], unit)} of the test images are mistaken"
    lines.append(f"{line}.")
    if not any(row.runs for row in rows.values()):
        lines.append("One seed each: the figures do not tell how much they spread.")
    lines.append("Probabilities are not calibrated.")
    return "\n".join(f"- {line}" for line in lines)


def _once(values):
    return list(dict.fromkeys(values))
