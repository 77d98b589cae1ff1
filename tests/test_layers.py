"""Who may import whom, read from the sources."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / "tf_mskd").rglob("*.py"))
ENTRIES = ("train", "cache", "evaluate", "calibrate", "report", "export", "tune")
ENTRIES += ("cli", "flags")
TOP = (*ENTRIES, "config", "experiment", "trainer", "run_folder", "evaluation")
FOUNDATION = (
    "ops",
    "schedules",
    "registry",
    "ensemble",
    "exit_rules",
    "temperature",
    "thresholds",
    "errors",
    "files",
    "distribution",
    "gradients",
    "checkpoint",
    "optimizers",
)


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path, top_level_only=False):
    """Names of the modules a file imports, `from a import b` as "a" and "a.b"."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in _outside_functions(tree) if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _outside_functions(tree):
    stack = [tree]
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.Lambda)):
            stack.extend(ast.iter_child_nodes(node))


def under(name, prefixes):
    return any(name == p or name.startswith(p + ".") for p in prefixes)


def package(*names):
    return tuple(f"tf_mskd.{name}" for name in names)


def files_of(*names):
    return [path for path in FILES if under(module_of(path), package(*names))]


RULES = {  # these modules -> import none of those
    ("models",): (*TOP, "methods", "data", "distiller", "callbacks", "saving"),
    ("methods",): (*TOP, "models", "data", "distiller", "callbacks", "saving"),
    ("data",): (*TOP, "models", "methods", "distiller", "callbacks", "saving"),
    FOUNDATION: (
        *TOP,
        "models",
        "methods",
        "data",
        "distiller",
        "callbacks",
        "saving",
    ),
    ("distiller",): (*TOP, "callbacks", "saving", "data"),
    ("saving",): (*TOP, "methods", "data", "distiller", "callbacks"),
    ("callbacks",): (*TOP, "models", "methods", "data", "distiller"),
    ("trainer", "evaluation"): (*ENTRIES, "config", "experiment", "methods", "data"),
}
EXCEPTIONS = {"tf_mskd.data.prepare": package("cli")}  # an entry point of its own


@pytest.mark.parametrize("group", RULES, ids=lambda group: group[0])
def test_imports_point_down(group):
    files = files_of(*group)
    assert files, group
    for path in files:
        module = module_of(path)
        allowed = EXCEPTIONS.get(module, ())
        upward = [
            name
            for name in imports(path)
            if under(name, package(*RULES[group])) and not under(name, allowed)
        ]
        assert not upward, f"{module} imports {upward}"


def test_every_core_module_is_there():
    present = {module_of(path) for path in FILES}
    assert present >= set(package(*FOUNDATION, "distiller", "saving", "trainer"))


def test_the_core_starts_without_tensorflow():
    core = (*FOUNDATION, "models", "methods", "distiller", "saving", "callbacks")
    for path in [*files_of(*core), ROOT / "tf_mskd" / "__init__.py"]:
        names = imports(path, top_level_only=True)
        heavy = [n for n in names if under(n, ("tensorflow", "tensorflow_datasets"))]
        assert not heavy, f"{module_of(path)} imports {heavy} at module level"


def test_pure_functions_never_import_tensorflow():
    pure = ("ops", "schedules", "registry", "ensemble", "errors", "files", "optimizers")
    backend_specific = ROOT / "tf_mskd" / "models" / "fused.py"
    for path in files_of(*pure, "models", "methods"):
        if path == backend_specific:
            continue
        heavy = [n for n in imports(path) if under(n, ("tensorflow",))]
        assert not heavy, f"{module_of(path)} imports {heavy}"


def test_only_entry_points_know_flags():
    entries = package(*ENTRIES)
    entries += package("data.prepare")
    for path in FILES:
        if module_of(path) not in entries:
            names = [n for n in imports(path) if under(n, ("absl",))]
            assert not names, f"{module_of(path)} imports {names}"


def test_the_distiller_names_no_method():
    (path,) = files_of("distiller")
    methods = [n for n in imports(path) if n.startswith("tf_mskd.methods")]
    assert sorted(methods) == ["tf_mskd.methods.base", "tf_mskd.methods.base.Method"]
    classes = {
        node.name
        for file in files_of("methods")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
    } - {"Method"}
    assert {"CE", "KD", "MSKD", "OtO"} <= classes
    tree = ast.parse(path.read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not names & classes
