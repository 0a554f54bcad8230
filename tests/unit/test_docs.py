"""The documentation: its links lead somewhere, its tables have what the code can say, its blocks are read rightly."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from docsite import blocks, pages

ROOT = pages.ROOT
HEADING = re.compile(r"^#{1,6} +(.+?)\s*$")
TRACKED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
    timeout=30,
).stdout.split() or [path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as mkdocs and forges make them."""
    found = set()
    for line in pages.prose(page.read_text(encoding="utf-8")):
        if heading := HEADING.match(line):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).replace("`", "").lower()
            found.add(re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", text).strip()))
    return found


def test_the_pages_are_found() -> None:
    assert {"README.md", "docs/index.md", "docs/tutorial.md"} <= set(TRACKED)


@pytest.mark.parametrize("page", TRACKED)
def test_links_lead_somewhere(page: str) -> None:
    made = pages.made()
    for link in pages.links((ROOT / page).read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        there = (ROOT / page).parent / path
        inside = there.resolve().relative_to(ROOT).as_posix()
        if page.startswith("docs/") and inside.removeprefix("docs/") in made:
            continue
        if page.startswith("docs/") and inside == "docs/reference/chart.md":
            continue
        assert there.exists(), f"{page}: ({link}) leads nowhere"
        if anchor:
            assert anchor in anchors(there), f"{page}: ({link}): {path} has no such heading"


def test_every_page_has_its_place_in_the_navigation() -> None:
    text = (ROOT / "docsite/mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r": ([\w/-]+\.md)$", text, re.MULTILINE))
    there = {page.removeprefix("docs/") for page in pages.own()} | set(pages.ELSEWHERE.values())
    there |= {page for page in pages.made() if page.endswith(".md")}
    assert listed == there


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(pages.BrokenLink, match=r"docs/x\.md: \(nowhere\.md\)"):
        pages.relinked("docs/x.md", "x.md", "see [this](nowhere.md)", tmp_path)
    with pytest.raises(pages.BrokenLink, match="leads out of the tree"):
        pages.relinked("docs/x.md", "x.md", "see [this](../../etc/passwd)", tmp_path)


def test_links_are_made_to_fit(tmp_path: Path) -> None:
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference/chart.md").touch()
    text = "[chart](../charts/avatar-operator/README.md#tts) [crd](../crds/avatars.yaml)\n```\n[no](link.md)\n```"
    fitted = pages.relinked("docs/x.md", "x.md", text, tmp_path)
    assert "(reference/chart.md#tts)" in fitted
    assert "(files/crds/avatars.yaml)" in fitted
    assert "[no](link.md)" in fitted
    assert (tmp_path / "files/crds/avatars.yaml").is_file()


# ---- the tables -----------------------------------------------------------------------

CAMEL = re.compile(r"[A-Z][a-z]+(?:[A-Z]+[a-z]*)*|[A-Z]{2,}[A-Za-z]*")
# Where a reason stands among the arguments of what is made with it.
PLACES = {"Problem": 0, "Event": 1, "Desired": 1, "PodState": 1, "Speaker": 1, "end_of": 0}


def reasons(path: Path) -> set[str]:
    """The reasons of statuses, conditions and events that a module names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        said: list[ast.expr] = []
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if name in PLACES and len(node.args) > PLACES[name]:
                said.append(node.args[PLACES[name]])
            said += [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
        elif isinstance(node, ast.Tuple) and len(node.elts) in (3, 4):
            status = node.elts[-3]
            if isinstance(status, ast.Constant) and status.value in ("True", "False", "Unknown"):
                said.append(node.elts[-2])
        for expression in said:
            if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
                found.add(expression.value)
            elif isinstance(expression, ast.IfExp):
                branches = (expression.body, expression.orelse)
                found |= {str(b.value) for b in branches if isinstance(b, ast.Constant)}
    return {reason for reason in found if CAMEL.fullmatch(reason)}


def shown(page: str) -> set[str]:
    """The words that a page shows as code."""
    return set(re.findall(r"`([A-Za-z…]+)`", (ROOT / "docs" / page).read_text(encoding="utf-8")))


def test_every_reason_that_the_code_gives_is_in_a_table() -> None:
    modules = [*(ROOT / "operator/avatar_operator/domain").glob("*.py")]
    modules += (ROOT / "operator/avatar_operator/controller").glob("*.py")
    given = set().union(*(reasons(module) for module in modules if not module.name.startswith("audit")))
    assert {"PoolFull", "CountCorrected", "NoEngine", "StaleTelemetry", "Overlapping"} <= given
    explained = set().union(*(shown(page) for page in ("troubleshooting.md", "pod-ends.md", "gpu.md", "tts.md")))
    assert given - explained == set()


def test_no_table_explains_what_the_code_never_says() -> None:
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8").partition("## Every reason")[2]
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = {word for row in rows for word in re.findall(r"`(\w+)`", row)}
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "operator/avatar_operator").rglob("*.py")]
    whole = "\n".join(sources)
    assert len(named) > 60
    # `Idle`, `Unclaimed` and `MaxAge` become events by a word that is added.
    assert {word for word in named if word.removesuffix("Collected") not in whole} == set()


def test_the_old_managers_box_is_as_the_page_says() -> None:
    pool = next(
        document
        for document in yaml.safe_load_all((ROOT / "manifests/overlays/single-gpu-box/pool.yaml").read_text())
        if document["kind"] == "AvatarPool"
    )["spec"]
    page = (ROOT / "docs/migrate.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(): line.split("|")[3].strip() for line in page.splitlines() if line[:2] == "| "}
    assert rows["`MAX_AVATARS = 5`"] == str(pool["maxInstances"]) == str(pool["ports"]["count"])
    assert rows["`PRIMARY_GPU = 1`"] == f"`{pool['gpu']['primary']['indices']}`"
    assert rows["`BACKUP_GPU = 0`"] == f"`{pool['gpu']['backup']['indices']}`"
    assert rows["`BASE_PORT = 8615`"] == str(pool["ports"]["base"])
    assert rows["`STARTUP_TIMEOUT = 30`"] == str(pool["startupTimeoutSeconds"])
    assert rows["`IDLE_TIMEOUT = 1800`, 0 = never"] == str(pool["idle"]["timeoutSeconds"])


# ---- blocks of commands ---------------------------------------------------------------

PAGE = """
```sh
kubectl get avi
```

```text
NAME   AGE
ada    3s
```

<!-- not run: it takes
an hour -->
```sh
make demo
```

```yaml
kind: Avatar
```

```sh
true
```
"""


def test_blocks_with_what_they_print_and_why_they_are_not_run() -> None:
    first, second, third = blocks.blocks(PAGE)
    assert (first.script, first.printed, first.reason) == ("kubectl get avi\n", "NAME   AGE\nada    3s\n", None)
    assert (second.script, second.printed, second.reason) == ("make demo\n", None, "it takes an hour")
    assert (third.script, third.printed, third.reason) == ("true\n", None, None)
    assert [block.line for block in (first, second, third)] == [2, 13, 21]
    with pytest.raises(ValueError, match="line 2: a block without a language"):
        blocks.blocks("x\n```\nls\n```\n")


@pytest.mark.parametrize(
    ("said", "printed", "fit"),
    [
        ("ada  Running  8615  3s", "ada Running 8615 12m", True),
        ("ada  Running  8615  3s", "ada Running 8616 3s", False),
        ("at 2026-11-23T14:16:22Z", "at 2027-01-01T00:00:00Z", True),
        ("http://192.0.2.7:8615", "http://198.18.1.2:8615", True),
        ("http://192.0.2.7:8615", "http://198.18.1.2:8616", False),
        ("offset -4 ms", "offset +12 ms", True),
        ("25.00 fps", "19.87 fps", True),
        ("tts-edgetts-545bdb8896-45j6h 1/1", "tts-edgetts-7f9c6b9d5-x2x2x 1/1", True),
        ("one\n…\nfour", "one\ntwo\nthree\nfour", True),
        ("one\n…\nfour", "one\nfour", True),
        ("one\n…\nfour", "one\ntwo\nfour\nfive", False),
        ("picture … (good)", "picture late (good)", True),
        ("one", "one\ntwo", False),
        ("one\ntwo", "one", False),
        ("2 running", "1 running", False),
    ],
)
def test_what_may_differ_and_what_may_not(said: str, printed: str, fit: bool) -> None:
    assert blocks.fits(said, printed) is fit


async def test_a_shell_keeps_its_variables_and_ends_with_what_fails(tmp_path: Path) -> None:
    async with blocks.Shell(tmp_path, {"GREETING": "hello"}) as shell:
        assert await shell.run("NAME=ada; cd /; echo $GREETING", 20) == "hello\n"
        assert await shell.run("echo $NAME; pwd; cat", 20) == "ada\n/\n"
        assert await shell.run("printf half", 20) == "half"
        with pytest.raises(blocks.Differs, match="failed"):
            await shell.run("false\necho never", 20)
        with pytest.raises(blocks.Differs, match="did not end in 1 s"):
            await shell.run("sleep 100", 1)
        with pytest.raises(blocks.Differs, match="says\none\n--- printed\ntwo"):
            await blocks.play(shell, blocks.Block(1, "echo two", "one", None), 20)


def test_what_was_printed_takes_the_place_of_what_was_said() -> None:
    written = blocks.recorded(PAGE, {2: "NAME AGE\nbea 5s\n", 21: "nothing"})
    assert "bea 5s" in written
    assert "ada" not in written
    assert blocks.blocks(written)[1:] == [
        blocks.Block(b.line, b.script, b.printed, b.reason) for b in blocks.blocks(PAGE)[1:]
    ]


def test_no_block_of_the_tutorial_is_left_out_in_silence() -> None:
    found = blocks.blocks((ROOT / "docs/tutorial.md").read_text(encoding="utf-8"))
    assert len(found) > 15
    assert [block.line for block in found if block.reason and len(block.reason) < 20] == []
    assert [block.line for block in found if block.printed is None and not block.reason] == []


# Where README's commands are run; one that is nowhere has a reason.
ELSEWHERE = {
    "kubectl apply -f manifests/samples/avatarinstance-ada.yaml": "docs/tutorial.md",
    "kubectl get avi": "docs/tutorial.md",
    "helm install avatar-operator charts/avatar-operator --namespace avatars --create-namespace": "docs/tutorial.md",
    "kubectl -n avatars apply -f manifests/samples/avatarinstance-ada.yaml": "docs/tutorial.md, with another -n",
    "kubectl -n avatars create secret generic avatar-api-jwt": "tests/e2e/test_api.py, by the API server's own API",
    "helm upgrade avatar-operator charts/avatar-operator --namespace avatars": "tests/e2e/test_api.py",
    "kubectl -n avatars port-forward service/avatar-operator-api 8607": "it holds the terminal; tests/e2e/test_api.py",
    "curl -H": "needs a token of the reader's own; tests/api/test_old_contract.py sends the same",
}


def test_no_command_of_the_readme_is_left_out_in_silence() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    fences = [fence[2] for fence in blocks.FENCE.finditer(page) if fence[1] in ("", "sh")]
    words = re.compile(r"^(?:\$ )?((?:kubectl|helm|curl|make|pip|python3?) .*)")
    commands = [m[1] for fence in fences for line in fence.splitlines() if (m := words.match(line))]
    assert len(commands) > 6
    tutorial = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    for command in commands:
        (known,) = [each for each in ELSEWHERE if command == each or command.startswith(f"{each} ")]
        where = ELSEWHERE[known]
        for path in re.findall(r"tests/[\w/]+\.py", where):
            assert (ROOT / path).exists(), path
        if where == "docs/tutorial.md":
            assert known in tutorial, known
    used = {each for each in ELSEWHERE if any(command.startswith(each) for command in commands)}
    assert used == set(ELSEWHERE), "README has them no more"
