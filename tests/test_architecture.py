"""Rules that hold for the whole tree: where imports point, what they cost, how long files are."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "tvm_sparsewino"
SOURCES = {
    PACKAGE: PACKAGE,
    "relay_passes": f"{PACKAGE}.relay_passes",
    "schedules": f"{PACKAGE}.schedules",
}

# Lower layers come first. A module may import its own layer and those below it.
LAYERS = (
    (
        *("_version", "errors", "files", "memory", "timing", "host", "_compat", "_autoload"),
        *("hot_loop", "constants", "aligned"),
    ),
    ("cook_toom", "tensor_file", "extras", "thread_pool"),
    (
        "geometry",
        "geometry_panels",
        "geometry_pooling",
        "geometry_direct",
        "geometry_depthwise",
        "geometry_sparse",
        "geometry_tasks",
        "config",
        "weights",
        "onnx_graph",
        "pool_window",
        "structure",
        "row_slices",
        "config_linear",
        "geometry_linear",
    ),
    (
        *(
            "packing",
            "packing_rows",
            "packing_direct",
            "packing_sparse",
            "packing_shared",
            "packing_structured",
            "packing_uniform",
        ),
        *(
            "reference",
            "cost",
            "cost_direct",
            "cost_depthwise",
            "cost_sparse",
            "cost_sparse_plans",
            "cost_sparse_work",
            "cost_prices",
            "cost_quantities",
            "records",
            "packing_linear",
            "cost_linear",
        ),
    ),
    ("schedules",),
    ("relay_passes", "planner", "planner_linear", "tuner"),
    ("onnx_io", "nn"),
    (
        *("artefact", "fingerprint", "exchange", "machines", "session", "executable", "loading"),
        *("batches", "batch_choice", "batch_costs", "crew", "signature", "linking"),
        "profile",
        *("building", "driver", "torch_backend", "native", "relay", "tvmc"),
    ),
    ("demo", "bench"),
    ("cli",),
)
# What hangs at the side sees the leaves, the configuration and the operator definitions only.
SIDE = ("onnx_io", "nn")
SIDE_MAY_IMPORT = (
    *(name for layer in LAYERS[:4] for name in layer),
    *SIDE,
    "relay_passes.ops",
)
# torch and onnx may be imported here and nowhere else.
HEAVY = {"torch": ("nn",), "onnx": ("onnx_io",)}

MAX_LINES = 400

# Written in pieces, so that this file does not hold the words it looks for.
FOREIGN = tuple(
    "".join(parts)
    for parts in (
        ("/wo", "rk/"),
        ("/tm", "p/"),
        ("/ho", "me/"),
        ("/ro", "ot/"),
        ("/op", "t/"),
        ("../sha", "red"),
        ("pypi", ".org"),
    )
)
TEXT = (".py", ".md", ".toml", ".txt", ".json", ".sh", ".csv", "Makefile", "run")


def modules():
    """Every module of the package: dotted name below the package (root is "") -> file."""
    found = {}
    for folder, name in SOURCES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = [*name.split("."), *path.relative_to(ROOT / folder).with_suffix("").parts]
            if parts[-1] == "__init__":
                parts.pop()
            found[".".join(parts[1:])] = path
    return found


MODULES = modules()


def imports(name, path):
    """Absolute dotted names that a module imports, anywhere in it."""
    package = [PACKAGE, *name.split(".")] if name else [PACKAGE]
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                is_module = inner.removeprefix(PACKAGE + ".") in MODULES
                yield inner if is_module else source


def own(name, path):
    """Names below the package that a module imports; "" is the package root itself."""
    for imported in imports(name, path):
        if imported == PACKAGE or imported.startswith(PACKAGE + "."):
            yield imported[len(PACKAGE) + 1 :]


def layer(name):
    top = name.split(".")[0]
    return next(i for i, names in enumerate(LAYERS) if top in names)


def below(name, prefixes):
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def test_every_module_has_a_layer():
    known = {name for names in LAYERS for name in names}
    assert {name.split(".")[0] for name in MODULES if name} <= known


@pytest.mark.parametrize("name", [name for name in MODULES if name])
def test_imports_point_down(name):
    wrong = [to for to in own(name, MODULES[name]) if not to or layer(to) > layer(name)]
    assert not wrong, f"{name} imports {wrong} ('' is the package root)"


@pytest.mark.parametrize("name", [name for name in MODULES if below(name, SIDE)])
def test_the_side_sees_leaves_and_operators_only(name):
    wrong = [to for to in own(name, MODULES[name]) if not below(to, SIDE_MAY_IMPORT)]
    assert not wrong, f"{name} imports {wrong}"


def test_no_two_modules_need_each_other():
    wanted = {
        name: {to for to in own(name, path) if to in MODULES} for name, path in MODULES.items()
    }
    done, active = set(), []

    def visit(name):
        assert name not in active, " -> ".join([*active[active.index(name) :], name])
        if name in done:
            return
        active.append(name)
        for to in sorted(wanted[name] - {name}):
            visit(to)
        done.add(active.pop())

    for name in MODULES:
        visit(name)


@pytest.mark.parametrize("library", HEAVY)
def test_heavy_libraries_stay_at_the_side(library):
    users = {
        name
        for name, path in MODULES.items()
        if any(below(imported, [library]) for imported in imports(name, path))
    }
    assert not [name for name in users if not below(name, HEAVY[library])]


def test_importing_the_package_is_light():
    program = f"import {PACKAGE}, sys; print(sorted({{'torch', 'onnx', 'tvm'}} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def text_files():
    folders = (*SOURCES, "tests", "benchmarks", "docs", ".ci")
    inside = (path for folder in folders for path in (ROOT / folder).rglob("*"))
    return sorted(
        path
        for path in (*ROOT.iterdir(), *inside)
        if path.is_file() and path.name.endswith(TEXT) and "__pycache__" not in path.parts
    )


@pytest.mark.parametrize("path", text_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_names_a_place_outside_of_the_project(path):
    text = path.read_text()
    assert not [word for word in FOREIGN if word in text]


@pytest.mark.parametrize("name", MODULES)
def test_files_stay_short(name):
    lines = len(MODULES[name].read_text().splitlines())
    assert lines <= MAX_LINES, f"{name} has {lines} lines: one idea per file"
