"""The limits of CONTRIBUTING.md that neither ruff nor mypy holds."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ccdgraph"
FILES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}

# Lowest first: a module imports from its own package and from the lines above its own.
LAYERS = [
    {"config", "capture", "topk"},
    {"data"},
    {"nn"},
    {"sampling", "ranking", "metrics", "losses"},
    {"evaluate", "selection", "recommender", "objective", "calibration"},
    {"train", "checkpoint"},
    {"distill"},
    {"continual"},
    {"testing"},
    {"run"},
    {"bench"},
    {"report"},
    {"cli"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# Method files import no other method file, so that each reads from top to bottom on its own.
SHARED = {
    "distill": {
        *("teacher", "labels", "hints", "lists", "consensus", "stored", "auxiliary", "knowledge"),
        *("heads", "balance", "trajectory"),  # what ConCF and HetComp are made of
    },
    "continual": {
        *("config", "known", "scene", "strategy", "growth", "replay"),
        *("incremental", "reservoir", "kmeans"),  # what the baselines have in common
        *("signals", "drift"),  # what adaptive CCD watches
        *("lwckd", "neighbours", "piw"),  # what several strategies regularise with
    },
}
# CCD is made of the others, and so is the table of methods.
COMPOSED = {
    *(
        "continual/ccd.py",
        "continual/generation.py",
        "continual/stages.py",
        "continual/adaptive.py",
    ),
    "distill/methods.py",
}

REQUIRED = {
    *("ccdgraph", "torch", "torch_geometric", "numpy", "pandas", "networkx"),
    *("pyarrow", "safetensors", "typer", "rich"),
}
# Files of kernels, each imported in the function that launches them: a kernel needs its language.
KERNELS = {"data/kernels.py": "triton"}
VERSION = "ccdgraph.__version__"  # all that the package itself holds
MAX_LINES, MAX_FUNCTION = 250, 50  # a function without its docstring

each_file = pytest.mark.parametrize("name", FILES)


def tree(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


def imports(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Absolute names of the modules that ``node`` imports, and the line."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: write the import in full"
            module = child.module or ""
            within = [f"{module}.{alias.name}" for alias in child.names]
            known = [path for path in within if is_module(path) or path == VERSION]
            yield from ((path, child.lineno) for path in known or [module])


def is_module(dotted: str) -> bool:
    path = PACKAGE.parent.joinpath(*dotted.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def top_level(module: ast.Module) -> Iterator[ast.stmt]:
    """Statements that run on import, without what only a type checker reads."""
    for node in module.body:
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield node


def public(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body)


@each_file
def test_layers_import_downwards_only(name):
    own = name.removesuffix(".py").split("/")[0]
    if own in ("__init__", "__main__"):
        return
    assert own in RANK, f"give '{own}' a place in LAYERS"
    for module, line in imports(tree(name)):
        package, *rest = module.split(".")
        if package != "ccdgraph" or rest == ["__version__"]:
            continue
        assert rest, f"{name}:{line} imports from the package itself, not from a module"
        assert rest[0] == own or RANK[rest[0]] < RANK[own], f"{name}:{line} imports {module}"


@each_file
def test_method_files_do_not_import_one_another(name):
    package = name.split("/")[0]
    if package not in SHARED or name in COMPOSED or name.endswith("__init__.py"):
        return
    for module, line in imports(tree(name)):
        if module.startswith(f"ccdgraph.{package}."):
            assert module.split(".")[2] in SHARED[package], f"{name}:{line} imports {module}"


@each_file
def test_optional_packages_are_imported_where_they_are_used(name):
    for node in top_level(tree(name)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for module, line in imports(node):
                package = module.split(".")[0]
                known = package in REQUIRED or package in sys.stdlib_module_names
                known |= package == KERNELS.get(name)
                assert known, f"{name}:{line} imports {package} at import time"
                path = module.removeprefix("ccdgraph.").replace(".", "/") + ".py"
                assert path not in KERNELS, f"{name}:{line} imports kernels at import time"


@each_file
def test_files_and_functions_are_short(name):
    assert len(FILES[name].read_text(encoding="utf-8").splitlines()) <= MAX_LINES
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            lines = (node.end_lineno or 0) - node.lineno + 1 - len(docstring.splitlines())
            assert lines <= MAX_FUNCTION, f"{name}:{node.lineno} {node.name} has {lines} lines"


@each_file
def test_only_the_command_line_prints(name):
    if name == "cli.py":
        return
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) != "print", f"{name}:{node.lineno} prints"


@each_file
def test_public_names_are_described(name):
    module = tree(name)
    assert ast.get_docstring(module) or not module.body, f"{name} has no docstring"
    for node in public(module.body):
        assert ast.get_docstring(node), f"{name}:{node.lineno} {node.name} has no docstring"
