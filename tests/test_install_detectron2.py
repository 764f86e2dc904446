"""The installer, on a made-up carrier wheel of four files and in a bare virtual environment."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from hashlib import sha1, sha256
from importlib.util import find_spec
from pathlib import Path

import pytest
from _detectron2_wheel import LABGYM, VERSION, Carrier, InstallError, build_wheel, extract, git_blob_sha1, read_blobs

TOOLS = Path(__file__).resolve().parents[1] / "tools"
# what upstream's repository would hold
UPSTREAM = {
    "__init__.py": b'__version__ = "0.6"\n',
    "model_zoo/__init__.py": b"from detectron2 import __version__\n",
    "model_zoo/configs/base.yaml": b"NOTE: LabGym.detectron2 in a yaml is not an import\n",
    "engine/__init__.py": b"",
}


def carried(files: dict[str, bytes]) -> dict[str, bytes]:
    """The same files as the carrier ships them, with its own code beside them."""
    moved = {"LabGym/detectron2/" + name: content for name, content in files.items()}
    moved["LabGym/detectron2/model_zoo/__init__.py"] = b"from LabGym.detectron2 import __version__\n"
    return moved | {"LabGym/__init__.py": b"raise RuntimeError", "labgym-3.1.2.dist-info/METADATA": b""}


def make_carrier(folder: Path, contents: dict[str, bytes], upstream: dict[str, bytes] = UPSTREAM) -> tuple:
    """A wheel with `contents`, and the carrier that describes it honestly but for the contents."""
    wheel = folder / "labgym-3.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    blobs = folder / "list.blobs"
    digests = {name: sha1(f"blob {len(content)}\0".encode() + content) for name, content in upstream.items()}
    blobs.write_text("# path\n" + "".join(f"{digest.hexdigest()}  {name}\n" for name, digest in digests.items()))
    return wheel, Carrier("labgym==3.1.2", sha256(wheel.read_bytes()).hexdigest(), blobs, "LabGym")


@pytest.fixture
def bare(tmp_path) -> Path:
    """site-packages of a new virtual environment that has pip and nothing else."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    # Not `import pip`: that makes setuptools step back from distutils for the rest of the process.
    (site / "pip").symlink_to(Path(sysconfig.get_path("purelib")) / "pip")
    return site


def python(site: Path, *arguments: str, path: tuple = ()) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    interpreter = site.parents[2] / "bin" / "python"
    return subprocess.run([interpreter, *arguments], capture_output=True, text=True, env=environment, check=False)


def run_tool(site: Path, arguments: list, carrier: Carrier) -> subprocess.CompletedProcess:
    """The tool's `main` with another carrier, run by the environment's own interpreter."""
    fields = [carrier.requirement, carrier.sha256, str(carrier.blobs), carrier.prefix]
    code = (
        "import json, pathlib, sys; import install_detectron2 as tool;"
        "arguments, (name, digest, blobs, prefix) = map(json.loads, sys.argv[1:]);"
        "sys.exit(tool.main(arguments, tool.Carrier(name, digest, pathlib.Path(blobs), prefix)))"
    )
    return python(site, "-c", code, json.dumps(list(map(str, arguments))), json.dumps(fields), path=(TOOLS,))


def assert_refused(result: subprocess.CompletedProcess, site: Path, mentions: str) -> None:
    """One sentence on stderr, exit code 2, and nothing but pip in site-packages."""
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1 and mentions in result.stderr
    assert [entry.name for entry in site.iterdir()] == ["pip"]


def test_blob_digest_is_gits():
    assert git_blob_sha1(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"  # git's well-known empty blob
    assert git_blob_sha1(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object


def test_committed_list_names_the_parts_the_plugin_uses():
    blobs = read_blobs(LABGYM.blobs)
    assert len(blobs) == 306
    assert all(len(digest) == 40 for digest in blobs.values())
    assert {"model_zoo/configs/Base-RCNN-FPN.yaml", "projects/point_rend/__init__.py"} <= blobs.keys()


def test_the_installed_copy_is_upstreams():
    folder = Path(find_spec("detectron2").origin).parent
    if not (folder.parent / f"detectron2-{VERSION}.dist-info").is_dir():
        pytest.skip("this Detectron2 was not installed by the tool")
    assert all(git_blob_sha1((folder / name).read_bytes()) == blob for name, blob in read_blobs(LABGYM.blobs).items())


def test_installs_a_package_that_pip_knows_then_keeps_it_then_uninstalls(tmp_path, bare):
    wheel, carrier = make_carrier(tmp_path, carried(UPSTREAM))
    # a broken copy that no package owns must neither pass for a working one nor leave files behind
    (bare / "detectron2").mkdir()
    (bare / "detectron2" / "stale.py").write_text("")

    first = run_tool(bare, ["--wheel", wheel], carrier)
    assert (first.returncode, first.stderr) == (0, "")
    installed = {str(p.relative_to(bare / "detectron2")): p.read_bytes() for p in (bare / "detectron2").rglob("*.*")}
    assert {name: text for name, text in installed.items() if not name.endswith(".pyc")} == UPSTREAM
    assert not (bare / "LabGym").exists()

    shown = python(bare, "-m", "pip", "show", "-f", "detectron2").stdout
    assert f"Version: {VERSION}" in shown and "License: Apache-2.0" in shown and "model_zoo/configs/base.yaml" in shown
    origin = (bare / f"detectron2-{VERSION}.dist-info" / "ORIGIN").read_text()
    assert "864913f0e57e87a75c8cc0c7d79ecbd774fc669b" in origin and carrier.sha256 in origin
    assert "Apache License" in (bare / f"detectron2-{VERSION}.dist-info" / "licenses" / "LICENSE").read_text()

    second = run_tool(bare, [], carrier)
    assert second.returncode == 0 and "kept" in second.stdout and f"0.6 {bare / 'detectron2'}" in second.stdout

    assert python(bare, "-m", "pip", "uninstall", "-y", "detectron2").returncode == 0
    assert not (bare / "detectron2").exists()


def test_refusals_leave_nothing_behind(tmp_path, bare, monkeypatch):
    wheel, carrier = make_carrier(tmp_path, carried(UPSTREAM | {"engine/__init__.py": b"tampered"}))
    assert_refused(run_tool(bare, ["--wheel", wheel], carrier), bare, "engine/__init__.py is not upstream's")

    unreachable = Carrier("labgym-that-nobody-published==0", carrier.sha256, carrier.blobs, carrier.prefix)
    (tmp_path / "pip.conf").write_text("[global]\nno-index = true\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    assert_refused(run_tool(bare, [], unreachable), bare, "check the network")


def test_a_torch_that_torchvision_cannot_use_is_named(tmp_path, bare):
    wheel, carrier = make_carrier(tmp_path, carried(UPSTREAM))
    (bare / "torch.py").write_text("__version__ = '2.13.0+cpu'")
    (bare / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    result = run_tool(bare, ["--wheel", wheel], carrier)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "2.13.0+cpu" in result.stderr and "torchvision::nms" in result.stderr
    assert not (bare / "detectron2").exists()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"engine/extra.py": b""}, "engine/extra.py does not belong there"),
        ({"engine/__init__.py": None}, "engine/__init__.py is missing"),
        ({"model_zoo/configs/base.yaml": b"NOTE: LabGym.detectron2\n"}, "base.yaml is not upstream's"),
    ],
)
def test_any_difference_is_refused(tmp_path, change, complaint):
    files = {name: content for name, content in (UPSTREAM | change).items() if content is not None}
    wheel, carrier = make_carrier(tmp_path, carried(files))
    with pytest.raises(InstallError, match=complaint):
        extract(wheel, carrier)


def test_a_truncated_or_absent_download_is_refused(tmp_path):
    wheel, carrier = make_carrier(tmp_path, carried(UPSTREAM))
    wheel.write_bytes(wheel.read_bytes()[:-100])
    with pytest.raises(InstallError, match="damaged"):
        extract(wheel, carrier)
    with pytest.raises(InstallError, match="cannot read"):
        extract(tmp_path / "absent.whl", carrier)


def test_the_built_wheel_records_each_of_its_files(tmp_path):
    wheel, carrier = make_carrier(tmp_path, carried(UPSTREAM))
    built = build_wheel(extract(wheel, carrier), tmp_path, carrier)
    with zipfile.ZipFile(built) as archive:
        record = archive.read(f"detectron2-{VERSION}.dist-info/RECORD").decode().splitlines()
        assert {line.split(",")[0] for line in record} == set(archive.namelist())
    check = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--no-deps",
        "--no-index",
        "--ignore-installed",
        built,
    ]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0
