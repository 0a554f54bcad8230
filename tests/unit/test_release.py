"""scripts/release-check: what a release needs, and what it says where that is not so."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import json
import subprocess
import tarfile
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = ("pyproject.toml", "CHANGELOG.md", "charts/avatar-operator/Chart.yaml", "operator/avatar_operator/__init__.py")
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yaml"))


def loaded() -> ModuleType:
    """The script as a module."""
    loader = importlib.machinery.SourceFileLoader("release_check", str(ROOT / "scripts/release-check"))
    spec = importlib.util.spec_from_loader("release_check", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, Path]:
    """The script looking at a copy of the files, to be broken."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    module = loaded()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module, tmp_path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_this_tree_has_one_version() -> None:
    done = subprocess.run([ROOT / "scripts/release-check"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == loaded().versions()["pyproject.toml"]


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("pyproject.toml", 'version = "', 'version = "9.', "the version differs"),
        ("charts/avatar-operator/Chart.yaml", "\nversion: ", "\nversion: 9.", "the version differs"),
        ("operator/avatar_operator/__init__.py", '__version__ = "', '__version__ = "9.', "the version differs"),
        ("charts/avatar-operator/Chart.yaml", "\nversion: ", "\nversion: v", "is no version"),
        ("CHANGELOG.md", "## [Unreleased]\n", "", 'the first entry must be "## [Unreleased]"'),
    ],
)
def test_what_does_not_agree_is_named(tree: tuple[ModuleType, Path], file: str, old: str, new: str, words: str) -> None:
    module, folder = tree
    assert module.problems("") == []
    change(folder / file, old, new)
    assert any(words in problem for problem in module.problems("")), module.problems("")


def test_the_changelog_has_an_entry_with_a_date(tree: tuple[ModuleType, Path]) -> None:
    module, folder = tree
    version = module.versions()["pyproject.toml"]
    date = module.entries()[version][0]
    change(folder / "CHANGELOG.md", f"[{version}] - {date}", f"[{version}] - soon")
    assert any(f"the date of {version} is 'soon'" in problem for problem in module.problems(""))
    change(folder / "CHANGELOG.md", f"[{version}] - soon", f"[9.9.9] - {date}")
    assert any(f'no entry "## [{version}]' in problem for problem in module.problems(""))


def test_a_tag_is_that_of_the_version_and_nothing_is_left_unreleased(tree: tuple[ModuleType, Path]) -> None:
    module, folder = tree
    version = module.versions()["pyproject.toml"]
    text = (folder / "CHANGELOG.md").read_text(encoding="utf-8")
    head, _, rest = text.partition("## [Unreleased]\n")
    released = f"{head}## [Unreleased]\n\n## [{rest.partition('## [')[2]}"
    (folder / "CHANGELOG.md").write_text(released, encoding="utf-8")
    assert module.problems(f"v{version}") == []
    assert any("the tag is v9.9.9" in problem for problem in module.problems("v9.9.9"))
    change(folder / "CHANGELOG.md", "## [Unreleased]\n", "## [Unreleased]\n\n- Something.\n")
    assert module.problems("") == []
    assert any("move what is under Unreleased" in problem for problem in module.problems(f"v{version}"))


def test_the_workflows_run_what_is_there() -> None:
    """No YAML that does not parse, no script or make target that does not exist, no permission but those asked for."""
    assert [path.name for path in WORKFLOWS] == ["ci.yaml", "release.yaml"]
    targets = (ROOT / "Makefile").read_text(encoding="utf-8")
    for path in WORKFLOWS:
        # YAML 1.1 takes the key `on` for true.
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert workflow["permissions"] == {"contents": "read"}
        assert workflow[True]
        for job in workflow["jobs"].values():
            assert job["timeout-minutes"] <= 120
            for step in job["steps"]:
                for word in step.get("run", "").replace('"', " ").split():
                    if word.startswith(("scripts/", "images/", ".ci/", "locks/")):
                        assert (ROOT / word).exists(), f"{path.name}: {word}"
                for line in step.get("run", "").splitlines():
                    if line.strip().startswith("make "):
                        for target in line.split()[1:]:
                            assert "=" in target or f"\n{target}:" in targets, f"{path.name}: make {target}"


# ---- bills of materials ---------------------------------------------------------------

DEBIAN = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9+deb12u10\n"
PYTHON = "Metadata-Version: 2.4\nName: Foo_Bar\nVersion: 1.2.3\nLicense-Expression: MIT\n\nName: not this\n"


def archive(path: Path, layers: list[dict[str, str]]) -> Path:
    """An image as images/build packs it."""

    def add(tree: tarfile.TarFile, name: str, content: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tree.addfile(entry, io.BytesIO(content))

    with tarfile.open(path, "w") as whole:
        manifest = {"Config": "0" * 64 + ".json", "RepoTags": ["localhost/x/tool:1"], "Layers": []}
        for index, files in enumerate(layers):
            layer = io.BytesIO()
            with tarfile.open(fileobj=layer, mode="w") as tree:
                for name, text in files.items():
                    add(tree, name, text.encode())
            add(whole, f"{index}.tar", layer.getvalue())
            manifest["Layers"].append(f"{index}.tar")
        add(whole, "manifest.json", json.dumps([manifest]).encode())
    return path


def sbom(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [ROOT / "scripts/sbom", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_bill_of_materials_names_what_is_in_the_image(tmp_path: Path) -> None:
    site = "usr/local/lib/python3.11/dist-packages"
    image = archive(
        tmp_path / "tool.tar",
        [
            {"var/lib/dpkg/status.d/libc6": DEBIAN, "etc/passwd": "root"},
            {f"{site}/foo_bar-1.2.3.dist-info/METADATA": PYTHON, f"{site}/foo_bar/__init__.py": ""},
        ],
    )
    done = sbom("--to", tmp_path / "out", image)
    assert done.returncode == 0, done.stderr
    assert "2 packages in localhost/x/tool:1" in done.stdout
    bill = json.loads((tmp_path / "out/tool.cdx.json").read_text(encoding="utf-8"))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["name"] == "localhost/x/tool"
    found = {each["purl"]: each for each in bill["components"]}
    assert set(found) == {"pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64", "pkg:pypi/foo-bar@1.2.3"}
    assert found["pkg:pypi/foo-bar@1.2.3"]["licenses"] == [{"expression": "MIT"}]
    assert set(bill["dependencies"][0]["dependsOn"]) == set(found)
    sbom("--to", tmp_path / "again", image)
    assert (tmp_path / "again/tool.cdx.json").read_text() == (tmp_path / "out/tool.cdx.json").read_text()


def test_an_image_of_nothing_known_is_an_error(tmp_path: Path) -> None:
    done = sbom("--to", tmp_path / "out", archive(tmp_path / "x.tar", [{"etc/passwd": "root"}]))
    assert done.returncode == 1
    assert "has neither Debian's nor Python's packages" in done.stderr
