"""The code behind a step as one hash: syntax trees without comments and docstrings, so that only a real change counts.

A step's code is the import closure of its root modules within segkd, plus the module of the method it trains with.
What can never change a result is left out: configuration (its values are handed over by themselves), errors, files.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

from segkd.errors import ConfigError

PACKAGE = Path(__file__).resolve().parents[1]
_OUTSIDE = ("segkd.config", "segkd.errors", "segkd.files", "segkd.steps", "segkd.cli")
_TRAINING = ("segkd.training.run", "segkd.evaluation.quick")
ROOTS: dict[str, tuple[str, ...]] = {
    "download": ("segkd.data.download",),
    "prepare": ("segkd.data.prepare",),
    "teacher": _TRAINING,
    "student": _TRAINING,
    "autoencoder": ("segkd.training.pretrain",),
    "import": ("segkd.imports.step",),
    "evaluate": ("segkd.evaluation.step",),
    "track": ("segkd.tracking.replay",),
    "report": ("segkd.report.build",),
    "landing": ("segkd.report.landing",),
}


def code_fingerprint(step: str, method: str | None = None) -> str:
    """sha256 (hex, 16 digits) of the code behind a step of the workflow.

    step: a key of ROOTS; method: the name under which a method is registered, or None / "none" without a teacher.
    """
    if step not in ROOTS:
        raise ConfigError(f"there is no step {step!r}; there are {', '.join(ROOTS)}")
    roots = list(ROOTS[step])
    if method not in (None, "none"):
        roots.append(_method_module(method))
    total = hashlib.sha256()
    for module in sorted(_closure(roots)):
        total.update(f"{module} {_module_digest(_source(module))}\n".encode())
    if step in {"report", "landing"}:  # what the page looks like is in its templates
        for path in sorted(PACKAGE.glob("report/**/*")):
            if path.is_file() and path.suffix not in {".py", ".pyc"}:
                total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()[:16]


def _closure(roots: list[str]) -> set[str]:
    """All modules that the roots import, directly or through others, without the rooms that change no result."""
    found: set[str] = set()
    missing = [module for module in roots if _source(module) is None]
    if missing:
        raise ConfigError(f"the code behind a step is missing: {', '.join(missing)}; install segkd again")
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if module in found or module.startswith(_OUTSIDE):
            continue
        found.add(module)
        waiting += [name for name in _imports(_source(module), module) if name not in found and _source(name)]
    return found


@functools.cache
def _source(module: str) -> Path | None:
    """File of a module: ours by its path, a third party's by its import specification."""
    parts = module.split(".")
    if parts[0] == PACKAGE.name:
        base = PACKAGE.joinpath(*parts[1:])
        return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()), None)
    spec = importlib.util.find_spec(module)
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


@functools.cache
def _tree(path: Path) -> ast.Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [item for item in node.body if not _is_docstring(item)] or [ast.Pass()]
    return tree


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@functools.cache
def _module_digest(path: Path) -> str:
    return hashlib.sha256(ast.unparse(_tree(path)).encode()).hexdigest()


def _imports(path: Path | None, module: str) -> Iterator[str]:
    """Names of modules that a file imports from its own package, late imports included."""
    if path is None:
        return
    own = module.partition(".")[0]
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] in {own, PACKAGE.name})


@functools.cache
def _method_module(method: str) -> str:
    """The module that registers a method, found without importing it (an import would cost seconds)."""
    for path in sorted((PACKAGE / "methods").glob("*.py")):
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ClassDef) and any(_registers(item, method) for item in node.decorator_list):
                return f"{PACKAGE.name}.methods.{path.stem}"
    for entry in entry_points(group="segkd.methods"):
        if entry.name == method:
            return entry.module
    raise ConfigError(f"there is no method {method!r} in segkd.methods or in the entry-point group segkd.methods")


def declares(method: str, attribute: str) -> bool:
    """Whether the class registered as `method` defines `attribute` itself, e.g. `pretraining`; nothing is imported."""
    if method == "none" or (path := _source(_method_module(method))) is None:
        return False
    classes = [node for node in ast.walk(_tree(path)) if isinstance(node, ast.ClassDef)]
    own = [item for cls in classes if any(_registers(one, method) for one in cls.decorator_list) for item in cls.body]
    return any(isinstance(item, ast.FunctionDef) and item.name == attribute for item in own)


def _registers(node: ast.expr, method: str) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "register"):
        return False
    return any(isinstance(item, ast.Constant) and item.value == method for item in node.args)
