"""Files that only other programs read: hooks, workflows, issue forms and the citation."""

import sys
import tomllib
from pathlib import Path
from typing import Any

import check_jsonschema
import pytest
import yaml

import vq

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def hooks() -> list[dict[str, Any]]:
    return [hook for repo in read(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]


@pytest.mark.parametrize("hook", hooks(), ids=lambda hook: hook["id"])
def test_each_hook_runs_a_program_of_the_environment(hook: dict[str, Any]) -> None:
    program = hook["entry"].split()[0]
    assert program.startswith(".venv/bin/")
    assert (Path(sys.executable).parent / Path(program).name).is_file()


def test_hooks_need_no_other_repository() -> None:
    assert [repo["repo"] for repo in read(".pre-commit-config.yaml")["repos"]] == ["local"]


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("vendor.github-workflows", ".github/workflows/*.yml"),
        ("vendor.github-issue-forms", ".github/ISSUE_TEMPLATE/[!c]*.yml"),
        ("vendor.github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
        ("vendor.citation-file-format", "CITATION.cff"),
    ],
)
def test_files_fit_their_schema(schema: str, pattern: str, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(file) for file in sorted(ROOT.glob(pattern))]
    assert files
    with pytest.raises(SystemExit) as end:
        check_jsonschema.main(["--builtin-schema", schema, *files])
    assert end.value.code == 0, capsys.readouterr().out


def test_the_workflow_runs_what_ci_runs_on_each_supported_python() -> None:
    job = read(".github/workflows/ci.yml")["jobs"]["test"]
    assert any(step.get("run") == "bash .ci/run" for step in job["steps"])
    supported = [name.rpartition(" ")[2] for name in PROJECT["classifiers"] if ":: Python :: 3." in name]
    assert job["strategy"]["matrix"]["python"] == supported


def test_the_citation_names_this_version_and_licence() -> None:
    citation = read("CITATION.cff")
    assert citation["version"] == vq.__version__ == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
