"""Writes the flagfiles of the published tables, of the short comparison, and of digits.

    python tools/make_configs.py            write them
    python tools/make_configs.py --check    only say which would change

A cell is a pair of networks and a method, each written once: the pair in
`configs/pairs/`, the method in `configs/methods/`. What a method needs done first
(heads on the teacher, a paraphraser, an initialised student) is a flagfile of its own,
made here as well and shared by all cells that need it.
"""

import dataclasses
import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[1]
HEAD = "# Written by tools/make_configs.py."
SOURCE = "Xu et al., Applied Sciences 12(19):9453 (2022), comparison of methods"

CIFAR100 = """
              resnet152:resnet50 resnet152:resnet18 resnet152:resnet10 resnet50:resnet18 resnet50:vgg8 vgg13:vgg8 wrn_40_2:wrn_16_2
kd            79.69 79.86 77.85 79.72 73.81 72.98 74.92
fitnet        80.51 79.24 78.02 76.27 73.24 73.22 73.07
at            80.41 80.19 78.45 78.28 74.01 73.48 73.97
sp            80.72 79.87 78.25 79.32 73.52 73.49 74.34
cc            79.89 79.82 78.06 77.42 73.48 73.04 73.18
vid           79.24 79.67 77.80 76.79 73.46 72.97 74.07
rkd           80.22 79.60 77.90 78.75 73.51 73.19 73.36
pkt           80.57 79.44 78.41 78.89 73.61 73.25 74.42
ab            81.21 79.50 78.18 76.77 73.65 73.35 72.65
ft            80.37 79.26 77.53 76.29 72.98 73.44 73.33
crd           80.53 79.81 78.60 74.58 74.58 74.29 75.79
sskd          80.29 80.36 78.60 79.72 75.36 75.27 76.14
hsakd         83.33 82.17 79.75 81.22 75.20 75.07 78.20
tskd          83.09 81.27 79.34 81.28 75.63 75.42 78.31
mskd          82.37 81.32 79.38 81.17 75.74 75.83 77.58
oto           83.20 81.73 79.74 81.42 76.05 76.27 78.57
oto_star      83.47 82.63 80.52 82.10 76.19 76.36 78.72
"""  # noqa: E501
TINY_IMAGENET = """
              resnet34:resnet18 resnet34:resnet34
kd            67.90 68.80
fitnet        64.44 66.18
at            66.54 67.16
sp            67.06 68.36
vid           66.92 68.08
rkd           65.90 67.80
pkt           65.76 68.18
crd           67.94 68.96
afd           68.56 69.58
mskd          69.04 70.78
oto           69.86 71.38
"""
OTO_EXITS = {  # of the same paper, exits 1 to 4
    "resnet152:resnet50": "79.32 80.80 81.78 81.74",
    "resnet152:resnet18": "75.06 77.40 80.15 80.50",
    "resnet152:resnet10": "73.19 75.12 77.52 78.02",
    "resnet50:resnet18": "74.37 77.62 80.09 80.65",
    "resnet50:vgg8": "71.20 69.79 70.95 72.98",
    "vgg13:vgg8": "71.17 70.59 71.10 72.65",
    "resnet34:resnet34": "59.52 63.80 68.65 70.38",
    "resnet34:resnet18": "59.86 62.30 65.30 68.04",
}
SEPARABLE = ("resnet50", "resnet101", "resnet152")  # heads that do not double them
TITLES = {
    "fitnet": "FitNet",
    "oto": "OtO",
    "oto_star": "OtO*",
    "dbt": "Phuong-Lampert",
}
TITLES |= {"fitnet_two_stage": "FitNet in two stages", "triplet": "Triplet-KD"}
TITLES |= {"byot": "BYOT", "bilateral": "Bilateral KD", "ce": "Labels alone"}

# competitors of these columns are "method + KD" in the published table
WITH_KD = ("resnet50:vgg8", "vgg13:vgg8")
COMPETITORS = ("fitnet", "at", "sp", "cc", "vid", "rkd", "pkt", "ab", "ft", "crd")

# method -> kind of the run that makes its teacher, or the start of its student
TEACHERS = {"oto": "exits", "oto_star": "exits", "ft": "paraphraser"}
TEACHERS |= {"sskd": "projection", "hsakd": "rotation", "atf": "atf", "purf": "purf"}
TEACHERS |= {"takd": "assistant"}
STARTS = {"ab": "ab", "fitnet_two_stage": "fitnet"}
# methods whose cell is an ordinary run after what was done first
AFTERWARDS = {"ab": "ce", "purf": "kd", "takd": "kd", "oto_star": "oto"}
OWN_TEACHER = ("byot", "dbt", "eed", "ce", "deep_supervision")

# what a run done first adds to the teacher's or the pair's flags
FIRST_METHODS = {"paraphraser": "paraphraser", "projection": "sskd_teacher"}
FIRST_METHODS |= {"rotation": "hsakd_teacher", "atf": "atf_teacher", "purf": "purf"}
FIRST_METHODS |= {"ab": "ab", "fitnet": "fitnet", "assistant": "kd"}


@dataclasses.dataclass(frozen=True)
class Family:
    """Cells of one data set and schedule.

    Attributes:
        folder: str, under `configs/`; the run folders have the same name.
        base: str, flagfile of data and schedule.
        title: str, as the comments say it.
        table: dict, method -> dict, pair -> published figure or None.
        lengths: dict, kind of run done first -> its flags.
        prefix: str, start of every cell's name.
        networks: dict, name in a pair -> stem of the flagfile of its plain run.
        assistant: str, model of the assistant.
        has_pair_in_name: bool, whether cells carry the pair in their names.
    """

    folder: str
    base: str
    title: str
    table: dict
    lengths: dict
    prefix: str = ""
    networks: dict = dataclasses.field(default_factory=dict)
    assistant: str = ""
    has_pair_in_name: bool = True

    def plain(self, network):
        """Path of the flagfile that trains one network with labels alone."""
        return f"configs/{self.folder}/{self.networks.get(network, network)}.flags"


def read_table(text):
    """A published table as a dict, method -> dict, pair -> figure (str)."""
    head, *rows = (line.split() for line in text.strip().splitlines())
    return {row[0]: dict(zip(head, row[1:], strict=True)) for row in rows}


ALL_METHODS = (
    "ce deep_supervision kd fitnet fitnet_two_stage at sp cc vid rkd pkt ab ft crd dkd "
    "dist afd sskd hsakd ccd tskd byot dbt eed takd dml bilateral triplet amkd aft "
    "atf purf mskd oto oto_star"
).split()
FAMILIES = (
    Family(
        folder="cifar100",
        base="configs/base/cifar100.flags",
        title="CIFAR-100",
        table=read_table(CIFAR100),
        lengths={
            "paraphraser": "--epochs=30 --lr=0.01 --lr_schedule=constant",
            "projection": "--epochs=60 --lr_drops=30,45",
            "rotation": "--epochs=100 --lr_drops=30,60,90",
            "ab": "--epochs=30 --lr_schedule=constant",
        },
    ),
    Family(
        folder="tiny_imagenet",
        base="configs/base/tiny_imagenet.flags",
        title="Tiny ImageNet",
        table=read_table(TINY_IMAGENET),
        lengths={},
    ),
    Family(
        folder="cifar100_small",
        base="configs/base/cifar100_short.flags",
        title="CIFAR-100, five epochs",
        table={name: {"vgg13:vgg8": None} for name in ALL_METHODS},
        lengths={
            "paraphraser": "--epochs=2 --lr=0.01 --lr_schedule=constant",
            "projection": "--epochs=2",
            "rotation": "--epochs=3",
            "ab": "--epochs=2 --lr_schedule=constant",
            "fitnet": "--epochs=2 --lr_schedule=constant --l2=0",
            "atf": "--epochs=1 --lr=0.01",
            "purf": "--epochs=5",
            "assistant": "--epochs=5",
        },
        prefix="short_",
        networks={"vgg13": "teacher", "vgg8": "short_ce"},
        assistant="vgg11",
        has_pair_in_name=False,
    ),
)


def title_of(name):
    """A method or network as a comment says it."""
    if name.startswith(("resnet", "vgg")):
        return name.replace("resnet", "ResNet-").replace("vgg", "VGG-")
    if name.startswith("wrn"):
        return "WRN-" + name[4:].replace("_", "-")
    return TITLES.get(name, name.upper().replace("_", " "))


def flagfile(path, comments, flags):
    """Text of a flagfile: comments, how to run it, flags."""
    folder, stem = path.parts[-2], path.stem
    run = f"python -m tf_mskd.train --flagfile={path} --run_dir=runs/{folder}/{stem}"
    lines = [*(f"# {c}" for c in comments), HEAD, f"# Run: {run}", *flags]
    return "\n".join(lines) + "\n"


def pair_file(family, pair):
    """Path and text of the flags that all cells of a pair share."""
    teacher, student = pair.split(":")
    name = f"{family.prefix}{teacher}_{student}".removeprefix("short_")
    path = pathlib.Path("configs/pairs") / f"{family.folder}_{name}.flags"
    flags = [f"--flagfile={family.base}", f"--teacher_flagfile={family.plain(teacher)}"]
    flags += [f"--model={student}", "--exits=last"]
    if student in SEPARABLE:
        flags.append("--exit_head=separable")
    title = f"{title_of(teacher)} to {title_of(student)}, {family.title}"
    comments = [f"# {title}; put one of configs/methods/ behind it.", HEAD]
    return path, "\n".join([*comments, *flags]) + "\n"


def first_file(family, kind, pair):
    """Path and text of the run that a cell needs done first; None if it is by hand."""
    teacher, student = pair.split(":")
    if kind == "exits":
        stem = f"{family.networks.get(teacher, teacher)}_exits"
        return pathlib.Path(f"configs/{family.folder}/{stem}.flags"), None
    method = f"--flagfile=configs/methods/{FIRST_METHODS[kind]}.flags"
    plain, pair_path = family.plain(teacher), pair_file(family, pair)[0]
    stem = f"{family.prefix}{teacher}_{kind}"
    flags = [f"--flagfile={plain}", f"--init_flagfile={plain}", method]
    if kind in ("paraphraser", "projection", "rotation"):
        title = f"{title_of(teacher)} with {kind} for distillation, {family.title}."
        flags.insert(2, "--freeze=backbone")
    elif kind == "atf":
        stem = f"{family.prefix}{teacher}_{student}_atf"
        title = f"{title_of(teacher)} tuned to teach {title_of(student)} (ATF)."
        flags.insert(2, f"--teacher_flagfile={family.plain(student)}")
    elif kind == "purf":
        title = f"{title_of(teacher)} trained for smoothness (PURF), {family.title}."
        flags = [f"--flagfile={plain}", f"--flagfile={family.base}", method]
    elif kind == "assistant":
        stem = f"{family.prefix}{teacher}_{family.assistant}_assistant"
        title = (
            f"{title_of(family.assistant)}, assistant of {title_of(teacher)} (TAKD)."
        )
        flags = [f"--flagfile={pair_path}", f"--model={family.assistant}", method]
    else:  # a start of the student
        stem = f"{family.prefix}{kind}_init"
        if family.has_pair_in_name:
            stem += f"_{teacher}_{student}"
        title = f"{title_of(student)} initialised by {title_of(kind)}, {family.title}."
        flags = [f"--flagfile={pair_path}", method]
        if kind == "fitnet":
            flags.append("--term_weights=ce:0")
    flags += family.lengths[kind].split()
    path = pathlib.Path(f"configs/{family.folder}/{stem}.flags")
    return path, flagfile(path, [title], flags)


def cell_file(family, method, pair, published):
    """Path and text of one cell."""
    teacher, student = pair.split(":")
    stem = family.prefix + method
    if family.has_pair_in_name:
        stem += f"_{teacher}_{student}"
    path = pathlib.Path(f"configs/{family.folder}/{stem}.flags")
    base = AFTERWARDS.get(method, method)
    with_kd = published and pair in WITH_KD and method in COMPETITORS
    flags = [f"--flagfile={pair_file(family, pair)[0]}"]
    flags.append(f"--flagfile=configs/methods/{base}.flags")
    if method == "oto_star":
        flags.append("--augment=crop,flip,autoaugment")
    if method in OWN_TEACHER:
        flags.append("--teacher_flagfile=")
    if method in TEACHERS:
        first = first_file(family, TEACHERS[method], pair)[0]
        flags.append(f"--teacher_flagfile={first}")
    if method in STARTS:
        flags.append(f"--init_flagfile={first_file(family, STARTS[method], pair)[0]}")
        if base == "ce" and not with_kd:
            flags.append("--teacher_flagfile=")
    if with_kd:
        flags += [f"--method={base},kd", "--term_weights=kd:1"]
    title = title_of(method) + (" + KD" if with_kd else "")
    comments = [f"{title}, {title_of(teacher)} to {title_of(student)}, {family.title}."]
    if published:
        comments.append(f"Source: {SOURCE}; published {published}.")
    if published and method == "oto" and pair in OTO_EXITS:
        comments.append(f"Published exits 1 to 4: {OTO_EXITS[pair]}.")
    return path, flagfile(path, comments, flags)


def all_files():
    """Returns a dict, path -> text, of all flagfiles that this tool writes."""
    files = {}
    for family in FAMILIES:
        for method, row in family.table.items():
            for pair, published in row.items():
                made = [pair_file(family, pair)]
                for kinds in (TEACHERS, STARTS):
                    if method in kinds:
                        made.append(first_file(family, kinds[method], pair))
                made.append(cell_file(family, method, pair, published))
                files.update((path, text) for path, text in made if text)
    return files


def main(arguments):
    """Writes what differs, or with --check only says so; returns the exit status."""
    check = "--check" in arguments
    stale = [
        path
        for path, text in all_files().items()
        if not (ROOT / path).exists() or (ROOT / path).read_text() != text
    ]
    for path in stale:
        if not check:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(all_files()[path])
        print(f"{'differs' if check else 'wrote'} {path}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
