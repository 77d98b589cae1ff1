"""Imports point down: one rule for every module, read from the sources."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / "tf_mskd").rglob("*.py"))
# every module may import from the floors below its own, and from its own package
FLOORS = (
    {"utils"},
    {"tasks"},
    {"data", "models", "methods"},
    {"training", "early_exit"},
    {"teacher_cache", "deployment", "callbacks"},
    {"runs"},
    {"on_jax"},
    {"train", "cache", "evaluate", "calibrate", "explain", "export", "tune", "report"},
    {"__main__"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
COMMANDS = FLOORS[-2]


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module):
    """The package or command that a module of tf_mskd belongs to; "" for the root."""
    return (module.split(".") + [""])[1]


def imports(path, top_level_only=False):
    """Names of the modules a file imports, `from a import b` as "a.b"."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in _outside_functions(tree) if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _outside_functions(tree):
    stack = [tree]
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.Lambda)):
            stack.extend(ast.iter_child_nodes(node))


def own(path):
    return {name for name in imports(path) if name.split(".")[0] == "tf_mskd"}


def test_every_module_stands_on_a_floor():
    """And every floor's rooms exist, so that neither side can rot."""
    rooms = {room_of(module_of(path)) for path in FILES} - {""}
    assert rooms == set(FLOOR)


def test_imports_point_down():
    upward = [
        f"{module_of(path)} imports {name}"
        for path in FILES
        if path != ROOT / "tf_mskd" / "__init__.py"  # the front door names them all
        for name in own(path)
        if room_of(name) != room_of(module_of(path))
        and FLOOR.get(room_of(name), len(FLOORS)) >= FLOOR[room_of(module_of(path))]
    ]
    assert not upward, "\n".join(upward)


def test_no_module_imports_itself_over_others():
    modules = {module_of(path): path for path in FILES}
    edges = {
        module: {target for name in own(path) if (target := _module(name, modules))}
        for module, path in modules.items()
        if module != "tf_mskd"
    }
    done = set()
    while ready := {m for m in edges.keys() - done if edges[m] <= done | {m}}:
        done |= ready
    circles = sorted(edges.keys() - done)
    assert not circles, f"circles among {circles}"


def _module(name, modules):
    """The module that `from a import b` reads: a.b if that is one, or else a."""
    for candidate in (name, name.rpartition(".")[0]):
        if candidate in modules:
            return candidate
    return ""


def test_only_flags_and_commands_know_absl():
    allowed = {"tf_mskd.runs.flags", "tf_mskd.runs.cli", "tf_mskd.data.prepare"}
    allowed |= {"tf_mskd.utils.flag_errors"}  # for the two above and prepare
    for path in FILES:
        module = module_of(path)
        if module in allowed or room_of(module) in COMMANDS:
            continue
        names = [name for name in imports(path) if name.split(".")[0] == "absl"]
        assert not names, f"{module} imports {names}"


def test_the_portable_core_never_imports_tensorflow():
    """Methods and networks run on every backend; one module needs TensorFlow."""
    heavy = {
        module_of(path)
        for path in FILES
        if room_of(module_of(path)) in ("methods", "models")
        and any(name.split(".")[0] == "tensorflow" for name in imports(path))
    }
    assert heavy == {"tf_mskd.methods.common.gradients"}


def test_the_core_starts_without_tensorflow():
    """Another backend needs no TensorFlow: what does imports it where it is used."""
    core = ("methods", "models", "callbacks", "utils", "early_exit")
    for path in FILES:
        module = module_of(path)
        if room_of(module) in core or module.startswith("tf_mskd.training.distiller"):
            names = imports(path, top_level_only=True)
            heavy = [n for n in names if n.split(".")[0].startswith("tensorflow")]
            assert not heavy, f"{module} imports {heavy} at module level"


def test_the_distiller_names_no_method():
    path = ROOT / "tf_mskd" / "training" / "distiller.py"
    methods = [name for name in own(path) if room_of(name) == "methods"]
    assert all(name.startswith("tf_mskd.methods.common.") for name in methods)
    classes = {
        node.name
        for file in (ROOT / "tf_mskd" / "methods").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    assert {"CE", "KD", "MSKD", "OtO"} <= classes
    tree = ast.parse(path.read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not names & classes
