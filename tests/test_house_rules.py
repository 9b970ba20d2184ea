"""The house rules that a machine can hold: floors, no hidden waits, docstrings, length, a silent import."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "ssod"
FILES = sorted(PACKAGE.rglob("*.py"))
FLOORS: dict[str, set[str]] = {  # a floor -> whom it may import besides itself
    "kernels": set(),
    "safe_load": {"errors"},
    "written_config": set(),
    "core": {"errors"},
    "models": {"core"},
    "data": {"core"},
    "methods": {"core", "models", "data"},
    "engine": {"core", "models", "data", "methods"},
    "study": {"core", "models", "data", "methods", "engine"},
}
GROUND = {
    "registry",
    "errors",
    "kernels",
    "safe_load",
    "written_config",
    "__init__",
}  # the package's own modules, open to every floor but core
FOREIGN_TO_CORE = {
    "mmdet",
    "mmengine",
    "mmcv",
    "albumentations",
    "torchvision",
    "cv2",
    "numpy",
    "pycocotools",
}
DEVICE_FILES = [
    file for floor in ("core", "models", "methods") for file in sorted((PACKAGE / floor).glob("*.py"))
]


def relative(file: Path) -> str:
    return file.relative_to(PROJECT).as_posix()


def each(files: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("file", files, ids=relative)


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def imported(file: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, also inside functions and for type checking."""
    package = file.relative_to(PROJECT).with_suffix("").parts[:-1]
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_there_are_files_to_hold_to_the_rules() -> None:
    assert {file.parent.name for file in FILES} >= {"ssod", "core", "models", "methods", "data", "engine"}


@each(FILES)
def test_imports_run_downward(file: Path) -> None:
    place = file.relative_to(PACKAGE).parts
    if len(place) == 1:
        return  # registry.py names modules of every floor, and imports them when asked
    floor = place[0]
    allowed = FLOORS[floor] | {floor} | (GROUND if floor != "core" else set())
    ours = {name.split(".")[1] for name in imported(file) if name.startswith("ssod.")}
    modules = {path.stem for path in PACKAGE.iterdir()}
    assert (ours & modules) <= allowed
    if floor == "core":
        assert not {name.split(".")[0] for name in imported(file)} & FOREIGN_TO_CORE


# ---------------------------------------------------------------- waiting for the device

# new_tensor copies from memory that isn't pinned: the host waits until the device is there.
WAITS = {"item", "tolist", "cpu", "numpy", "nonzero", "unique", "new_tensor"}
REDUCTIONS = {"any", "all", "sum", "max", "min", "amax", "amin", "mean", "isfinite", "isnan", "equal"}


def is_reduction(node: ast.expr) -> bool:
    """Whether an expression is, negates or joins a tensor's reduction: `x.any()`, `not (a == b).all()`."""
    if isinstance(node, ast.UnaryOp):
        return is_reduction(node.operand)
    if isinstance(node, ast.BoolOp):
        return any(is_reduction(value) for value in node.values)
    if isinstance(node, ast.Compare):
        return any(is_reduction(value) for value in (node.left, *node.comparators))
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in REDUCTIONS
    )


def waits(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines that make the host wait: a tensor read as a number, a bool or an array."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Attribute) and called.attr in WAITS:
                yield node.lineno, f".{called.attr}()"
            converts = isinstance(called, ast.Name) and called.id in ("bool", "int", "float")
            if converts and any(is_reduction(argument) for argument in node.args):
                yield node.lineno, f"{called.id}(tensor)"
        elif isinstance(node, ast.If | ast.While | ast.IfExp | ast.Assert) and is_reduction(node.test):
            yield node.test.lineno, "if tensor:"


@each(DEVICE_FILES)
def test_nothing_waits_for_the_device_unsaid(file: Path) -> None:
    lines = ["", *file.read_text().splitlines()]
    unsaid = [
        f"{relative(file)}:{line} {what}"
        for line, what in waits(parsed(file))
        if not any("# sync:" in near for near in lines[max(line - 1, 0) : line + 1])
    ]
    assert not unsaid


FOUND: list[tuple[str, list[str]]] = [
    ("x.item()", [".item()"]),
    ("x.tolist()[0]", [".tolist()"]),
    ("x.detach().cpu().numpy()", [".numpy()", ".cpu()"]),
    ("bool(x.any())", ["bool(tensor)"]),
    ("int(x.max())", ["int(tensor)"]),
    ("if x.any(): pass", ["if tensor:"]),
    ("y = 1 if not (x > 0).all() else 2", ["if tensor:"]),
    ("while x.sum() > 3 and y: pass", ["if tensor:"]),
    ("a, b = x.nonzero(as_tuple=True)", [".nonzero()"]),
    ("x.new_tensor([0.0, 1.0])", [".new_tensor()"]),
    ("if all(flags): pass", []),
    ("if x.numel() == 0: pass", []),
    ("n = int(rule.num * rule.pos_fraction)", []),
    ("y = float(spec)", []),
]


@pytest.mark.parametrize(("code", "expected"), FOUND, ids=[row[0] for row in FOUND])
def test_the_search_for_waits_finds_them(code: str, expected: list[str]) -> None:
    assert [what for _, what in waits(ast.parse(code))] == expected


@each(DEVICE_FILES)
def test_nothing_is_deep_copied(file: Path) -> None:
    names = {node.attr for node in ast.walk(parsed(file)) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(parsed(file)) if isinstance(node, ast.Name)}
    assert "deepcopy" not in names


# ---------------------------------------------------------------- reading


@each([file for file in FILES if file.parent.name == "methods"])
def test_a_method_is_one_page(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 150


@each([file for file in FILES if file.read_text().strip()])
def test_a_file_says_first_what_it_is_for(file: Path) -> None:
    assert ast.get_docstring(parsed(file))
    assert file.read_text().startswith('"""')


def public(tree: ast.Module) -> Iterator[ast.AST]:
    """Public classes and functions of a module, and public methods of its public classes."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (
                    inner
                    for inner in node.body
                    if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_")
                )


@each(FILES)
def test_what_is_public_has_a_docstring(file: Path) -> None:
    bare = [
        f"{relative(file)}:{node.lineno} {node.name}"
        for node in public(parsed(file))
        if not ast.get_docstring(node)
    ]
    assert not bare


# ---------------------------------------------------------------- importing


def test_importing_the_package_is_silent_and_cheap() -> None:
    heavy = ("torch", "mmdet", "mmengine", "mmcv", "numpy")
    code = f"import sys, ssod; assert ssod.__version__; sys.exit(any(m in sys.modules for m in {heavy}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
