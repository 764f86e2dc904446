"""The house: which folder may import which, and that none imports itself by a detour."""

import ast
from collections import Counter, defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = ["CarGAN/car_gan", "CityscapesTuning/cityscapes_tuning", "COIGAN/coigan"]
PACKAGES = ["gan_plugin", *(f"projects/{name}" for name in PROJECTS)]
# each may import those behind it
ORDER = ["comparison", "visualization", "engine", "evaluation", "modeling", "layers"]


def imported(file):
    """Full dotted names of all that a file imports, at the top or inside of a function."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ([node.level, *(node.module or "").split("."), alias.name] for alias in node.names)


def target_of(name, file, package):
    """The file or folder of `package` that a file of it means by an imported name; None for what is elsewhere."""
    if isinstance(name[0], int):
        level, *name = name
        place = file.parents[level - 1] if level else package.parent
    else:
        place = package.parent
    if not (place / next((part for part in name if part), "")).is_relative_to(package) and place == package.parent:
        return None
    for part in filter(None, name):
        if (place / part).is_dir():
            place = place / part
        elif (place / f"{part}.py").is_file():
            return place / f"{part}.py"
    return place if place.is_relative_to(package) else None


def folders(package):
    """{folder: the other folders that its files import}; a file beside the folders stands for itself."""
    graph = defaultdict(dict)

    def room(path):
        inside = path.relative_to(package).parts
        return inside[0] if inside else "__init__.py"

    for file in sorted(package.rglob("*.py")):
        for name in imported(file):
            target = target_of(name, file, package)
            if target is not None and room(target) != room(file):
                graph[room(file)].setdefault(room(target), file.relative_to(ROOT))
    return graph


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_imports_itself_by_a_detour(package):
    graph = folders(ROOT / package)
    # the package's own __init__ gathers what users import
    graph.pop("__init__.py", None)
    try:
        TopologicalSorter({room: set(targets) - {"__init__.py"} for room, targets in graph.items()}).prepare()
    except CycleError as error:
        cycle = error.args[1]
        arrows = [f"{b} -> {a} ({graph[b][a]})" for a, b in zip(cycle, cycle[1:], strict=False) if a in graph[b]]
        pytest.fail("; ".join(arrows))


def test_imports_point_one_way():
    graph = folders(ROOT / "gan_plugin")
    assert set(ORDER) <= graph.keys() | {room for targets in graph.values() for room in targets}
    up = [
        f"{room} -> {above} ({graph[room][above]})"
        for number, room in enumerate(ORDER)
        for above in ORDER[:number]
        if above in graph[room]
    ]
    assert not up


def packages_of(file):
    """The names at the top of what a file imports from elsewhere."""
    names = (name[1:] if name[0] == 0 else name for name in imported(file))
    return {name[0] for name in names if isinstance(name[0], str)}


def test_the_library_knows_no_project_no_tool_and_no_measurement():
    others = {"tools", "gan_plugin_tools", "benchmarks", *(Path(package).name for package in PACKAGES[1:])}
    for file in (ROOT / "gan_plugin").rglob("*.py"):
        assert not others & packages_of(file), file


def test_tools_are_commands_and_what_several_share():
    files = [file for part in ("tools", "projects") for file in (ROOT / part).rglob("*.py")]
    uses = Counter(name for file in files for name in packages_of(file))
    for file in (ROOT / "tools").glob("*.py"):
        if not file.name.startswith("_"):
            assert '\nif __name__ == "__main__":\n' in file.read_text(encoding="utf-8"), file
        elif file.name != "__init__.py":
            assert uses[file.stem] > 1, file


def test_nothing_but_tools_measures():
    for package in PACKAGES[1:]:
        for file in (ROOT / package).rglob("*.py"):
            assert "benchmarks" not in packages_of(file), file


def test_a_cycle_would_be_found(tmp_path):
    for file, text in {
        "p/__init__.py": "",
        "p/a/__init__.py": "",
        "p/a/x.py": "from p.b import y",
        "p/b/__init__.py": "",
        "p/b/y.py": "def f():\n    from ..c import z",
        "p/c.py": "import p.a.x\nz = 1\nimport os",
    }.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    graph = {}
    for file in sorted((tmp_path / "p").rglob("*.py")):
        for name in imported(file):
            target = target_of(name, file, tmp_path / "p")
            if target is not None:
                graph.setdefault(file.name, set()).add(target.relative_to(tmp_path).as_posix())
    assert graph == {"x.py": {"p/b/y.py"}, "y.py": {"p/c.py"}, "c.py": {"p/a/x.py"}}
