"""The vq script: its commands, its help, the listings, CONFIG by name, and completion in a real bash."""

import importlib
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import ROOT, environment

from vq import __version__, auto_torchrun, cli
from vq.__main__ import COMMANDS, help_text, main
from vq.catalogue import GROUPS, classes
from vq.completion import candidates
from vq.config import ConfigError, find_config, packaged
from vq.errors import UserError
from vq.registry import REGISTRIES

LIGHT = ("export_tokens", "import_tokens", "prepare_checkpoints")
"""The tools whose help needs no torch."""


def vq(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vq", *words],
        cwd=cwd, env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


class TestCommands:
    def test_the_help_describes_each_command(self) -> None:
        done = vq("--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == help_text()
        for name, command in COMMANDS.items():
            assert f"  {name} " in done.stdout
            assert command.summary in done.stdout

    def test_the_lines_of_the_help_parse(self) -> None:
        lines = [line.split("  ")[1] for line in help_text().splitlines() if line.startswith("  vq ")]
        assert len(lines) == 6
        for line in lines:
            name, *words = line.replace('"', "").split()[1:]
            importlib.import_module(COMMANDS[name].module).arguments().parse_args(words)

    def test_help_needs_neither_torch_nor_mmengine(self) -> None:
        code = """
import sys
from vq.__main__ import COMMANDS, main
main(["--help"])
main(["--version"])
main(["configs", "fsq/*"])
main(["list", "quantizers"])
for name in COMMANDS:
    try:
        main([name, "--help"])
    except SystemExit as end:
        assert end.code == 0, name
print("\\n", sorted({"torch", "mmengine", "numpy"} & set(sys.modules)))
"""
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
        )
        assert done.stdout.endswith("[]\n")
        for name in COMMANDS:
            assert re.search(rf"^usage: vq {name} ", done.stdout, re.M)
            assert re.search(rf"^example:\n  (eval .*|PROCESSES=. |)\W*vq {name} ", done.stdout, re.M), name

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        main(["--version"])
        assert capsys.readouterr().out == f"vq {__version__}\n"

    def test_without_a_command_it_shows_its_help(self) -> None:
        done = vq()
        assert (done.returncode, done.stdout, done.stderr) == (2, "", help_text())

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["trains"], "vq: there is no command 'trains'; did you mean 'train'?"),
            (["export", "run"], "the following arguments are required: --to"),
            (["tokens"], "required: export|import; `vq tokens --help`"),
            (["train", "zoo:family/name"], "NAME 'zoo:family/name': expected a relative name such as"),
            (["train", "run", "zoo:family/name"], "is the name of a published model, not of a page"),
            (["test", "zoo:llamagen/vq_ds16_c2"], "of this name; did you mean 'llamagen/vq_ds16_c2i'"),
            (["test", "zoo:llamagen/vq_ds16_c2i", "page"], "expected neither CONFIG nor --load-model-from"),
            (["test", "zoo:llamagen/c2i_B_256"], "expected a tokenizer, got a generator; use `vq generate`"),
            (["test", "run"], "run: expected --load-model-from F, the checkpoint to score, got none"),
            (
                ["test", "run", "--data", "photos"],
                "--data: expected the name of a published model (zoo:...), got run",
            ),
            (
                ["test", "run", "--expect"],
                "--expect: expected the name of a published model (zoo:...), got run",
            ),
            (["generate", "zoo:llamagen/vq_ds16_c2i"], "expected a generator, got a tokenizer"),
            (
                ["generate", "zoo:llamagen/c2i_B_256", "page"],
                "expected neither CONFIG, --load-from nor changes",
            ),
            (["weights", "inceptio"], "argument GROUP: invalid choice: 'inceptio'; did you mean 'inception'"),
            (["weights", "zoo:llamagen/vq_ds16_c2i", "lpips"], "expected published models alone"),
            (
                ["test", "run", "--load-model-from", "zoo:family/name"],
                "zoo:family/name: there is no published model of this name; `vq list pretrained` shows all",
            ),
        ],
    )
    def test_refused(
        self, words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError, match=re.escape(message)):
            main(words)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("form", ["script", "module"])
    @pytest.mark.parametrize("tool", [
        pytest.param(tool, marks=() if tool in LIGHT else pytest.mark.slow)
        for tool in sorted(path.stem for path in (ROOT / "tools").glob("[!_]*.py"))
    ])  # fmt: skip
    def test_each_tool_runs_in_both_ways(self, tool: str, form: str, tmp_path: Path) -> None:
        words = [ROOT / "tools" / f"{tool}.py"] if form == "script" else ["-m", f"tools.{tool}"]
        env = environment()
        del env["PYTHONPATH"]  # vq is installed; a script finds nothing else by it
        done = subprocess.run(
            [sys.executable, *words, "--help"],
            cwd=tmp_path if form == "script" else ROOT,
            env=env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("usage: ")


class TestListings:
    @pytest.mark.parametrize("group", GROUPS)
    def test_each_class_is_listed_with_a_sentence(self, group: str) -> None:
        import vq.registry as registries

        registries.registered_classes()  # imports every package: some register classes of a kind of another one
        names: set[str] = set()
        for name in GROUPS[group].registries:
            registry = getattr(registries, name)
            registry.import_from_location()
            names |= set(registry.module_dict)
        found = classes(group)
        assert set(found) == {name for name in names if not name.startswith("_")}
        assert all(text.endswith((".", "?")) for text in found.values()), found

    def test_the_groups_hold_every_registry(self) -> None:
        import vq.registry as registries

        held = {id(getattr(registries, name)) for group in GROUPS.values() for name in group.registries}
        assert held == {id(registry) for registry in REGISTRIES.values()}

    def test_wildcards(self, capsys: pytest.CaptureFixture[str]) -> None:
        main(["list", "quantizers", "*scalar*"])
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == [
            "FiniteScalarQuantizer",
            "ResidualFiniteScalarQuantizer",
            "ScalarPerturbationQuantizer",
            "SimpleFiniteScalarQuantizer",
        ]
        main(["list", "pretrained", "llamagen/vq*"])
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == [
            "llamagen/vq_ds8_c2i",
            "llamagen/vq_ds16_c2i",
            "llamagen/vq_ds16_t2i",
        ]
        assert "LlamaGen, tokenizer, 256 px, fid 2.19" in lines[1]
        main(["configs", "fsq/*_emoji"])
        assert re.match(r"fsq/1000_emoji +Finite scalar quantization with ", capsys.readouterr().out)

    def test_every_page_has_a_title(self) -> None:
        titles = packaged.titles()
        assert len(titles) == len(list((ROOT / "configs").glob("*/*.py")))
        assert all(title.endswith(".") for title in titles.values())

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["configs", "fsq"], "no page matches 'fsq'; did you mean '*fsq*'?"),
            (
                ["configs", "fsq/1000_emojy"],
                "no page matches 'fsq/1000_emojy'; did you mean 'fsq/1000_emoji'?",
            ),
            (["list", "losses", "lpips"], "no losses match 'lpips'; did you mean '*lpips*'?"),
            (["list", "losses", "zzz"], "no losses match 'zzz'"),
            (["list", "pretrained", "ds16"], "no published models match 'ds16'; did you mean '*ds16*'?"),
        ],
    )
    def test_nothing_found(self, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 1
        assert capsys.readouterr() == ("", f"{said}\n")


class TestConfigByName:
    def test_a_name_means_a_page(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert find_config("fsq/1000_emoji") == ROOT / "configs/fsq/1000_emoji.py"
        (tmp_path / "fsq/1000_emoji").mkdir(parents=True)  # a folder is no config
        assert find_config("fsq/1000_emoji") == ROOT / "configs/fsq/1000_emoji.py"

    def test_a_file_comes_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "fsq").mkdir()
        (tmp_path / "fsq/1000_emoji").write_text("")
        assert find_config("fsq/1000_emoji") == Path("fsq/1000_emoji")

    @pytest.mark.parametrize(
        ("word", "message"),
        [
            (
                "fsq/1000_emojy",
                "CONFIG 'fsq/1000_emojy': there is no such file, and no page .* mean 'fsq/1000_emoji'",
            ),
            (
                "xyz",
                "CONFIG 'xyz': there is no such file, and no page of this name comes with vq; `vq configs` lists",
            ),
            (
                "fsq/1000_emoji.py",
                "fsq/1000_emoji.py: there is no such file; a page .* is named 'fsq/1000_emoji'",
            ),
            (
                "configs/fsq/1000_emoji.py",
                "there is no such file; a page that comes with vq is named 'fsq/1000_emoji'",
            ),
        ],
    )
    def test_near_misses(
        self, word: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ConfigError, match=message):
            find_config(word)


class TestCompletion:
    @pytest.mark.parametrize(
        ("line", "found"),
        [
            ("tra", ["train"]),
            ("--v", ["--version"]),
            ("val emo", ["emoji"]),
            ("inference em", ["emoji"]),
            ("report emoji em", ["emoji"]),
            ("train emoji fsq/1000_e", ["fsq/1000_emoji"]),
            ("train emoji configs/", []),  # the shell completes file names
            ("val emoji --load-from iter_1", ["iter_10"]),
            ("val emoji --load-from iter_10 ", ["iter_10", "iter_5"]),
            ("train emoji --dry", ["--dry-run"]),
            ("tokens ", ["export", "import"]),
            ("tokens export --to ", ["parquet", "webdataset", "llamagen"]),
            ("tokens export x --to p", ["parquet"]),
            ("tokens elsewhere ", []),
            ("fid imagenet1", ["imagenet128"]),
            ("list quantizer", ["quantizers", "quantizer-parts"]),
            ("weights lpips inc", ["inception"]),
            ("weights zoo:unit", ["zoo:unitok/unitok_tokenizer"]),
            ("test zoo:unit", ["zoo:unitok/unitok_tokenizer"]),
            ("val zoo:unit", []),
            ("list pre", ["pretrained"]),
            ("completion ", ["bash", "zsh", "fish"]),
            ("nothing ", []),
        ],
    )
    def test_candidates(
        self, line: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("iter_5", "iter_10"):
            (cli.WORK_DIRS / "emoji/checkpoints" / name).mkdir(parents=True)
        (cli.WORK_DIRS / "emoji/config.json").write_text("{}")
        assert candidates(line.split(" ")) == found

    def test_in_a_real_bash(self, tmp_path: Path) -> None:
        """Types into an interactive shell, and reads what it completes."""
        (tmp_path / "vq").write_text(f'#!/bin/sh\nexec {sys.executable} -m vq "$@"\n')
        (tmp_path / "vq").chmod(0o755)
        path = f"{tmp_path}:{os.environ['PATH']}"
        child, terminal = pty.fork()
        if child == 0:
            os.execvpe("bash", ["bash", "--norc", "-i"], environment(PATH=path, TERM="dumb", PS1="ready> "))
        try:
            expect(terminal, "ready> ")
            os.write(terminal, b'eval "$(vq completion bash)"; echo d""one\n')
            expect(terminal, "\ndone")
            os.write(terminal, b"vq trai\t")
            expect(terminal, "vq train ")
            os.write(terminal, b"emoji fsq/1000_e\t")
            expect(terminal, "fsq/1000_emoji ")
            os.write(terminal, b"--dry\t")
            expect(terminal, "--dry-run ")
            os.write(terminal, b"\x15vq test zoo:unitok/\t")
            expect(terminal, "vq test zoo:unitok/unitok_tokenizer ")
        finally:
            os.close(terminal)
            os.waitpid(child, 0)


def expect(terminal: int, words: str) -> None:
    """Reads a terminal until some words appear."""
    said, deadline = "", time.monotonic() + 30
    while words not in said.replace("\r", ""):
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"{words!r} did not appear in {said!r}"
        said += os.read(terminal, 4096).decode(errors="replace")


class TestAutoTorchrun:
    def test_it_ends_with_the_exit_code_of_the_process_that_failed(self, tmp_path: Path) -> None:
        (tmp_path / "program.py").write_text(
            "import os, pathlib, sys, time\npathlib.Path(os.environ['RANK']).write_text(str(sys.argv[1:]))\n"
            "if os.environ['RANK'] == '1':\n    time.sleep(1)\n    sys.exit(7)\n"
        )
        done = subprocess.run(
            [sys.executable, "-m", "vq.auto_torchrun", "program.py", "a b", "--c"],
            cwd=tmp_path, env=environment(PROCESSES="2"), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 7, done.stderr
        # One file a process: two processes that print to one pipe may run their lines together.
        assert [(tmp_path / rank).read_text() for rank in "01"] == ["['a b', '--c']"] * 2
        assert done.stderr == (
            "auto_torchrun: 2 processes\n"
            "auto_torchrun: process 1 ended with exit code 7; the others were stopped\n"
        )

    def test_an_error_of_the_user_is_one_message(self, tmp_path: Path) -> None:
        done = subprocess.run(
            ["bash", str(ROOT / "tools" / "torchrun.sh"), "-m", "vq.val", "nothing"],
            cwd=tmp_path, env=environment(PROCESSES="2", PYTHON=sys.executable),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        launched, message = done.stderr.splitlines()
        assert launched == "auto_torchrun: 2 processes"
        assert message.startswith("error: work_dirs/nothing: there is no run of this name")

    def test_a_process_that_is_killed_ends_the_others(self, tmp_path: Path) -> None:
        (tmp_path / "program.py").write_text(
            "import os, signal, time\nif os.environ['RANK'] == '1':\n    os.kill(os.getpid(), signal.SIGKILL)\n"
            "time.sleep(100)\n"
        )
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "vq.auto_torchrun", "program.py"],
            cwd=tmp_path, env=environment(PROCESSES="2"), capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        assert done.returncode == 128 + 9
        assert time.monotonic() - started < 60
        assert "process 1 was ended by SIGKILL; the others were stopped" in done.stderr
        assert "torch/distributed" not in done.stderr

    def test_number_of_processes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PROCESSES", "3")
        assert auto_torchrun.num_processes() == 3
        monkeypatch.delenv("PROCESSES")
        monkeypatch.setenv("nproc_per_node", "2")
        assert auto_torchrun.num_processes() == 2
        monkeypatch.delenv("nproc_per_node")
        monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
        assert auto_torchrun.num_processes() == 4
        monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
        assert auto_torchrun.num_processes() == 1

    @pytest.mark.parametrize(
        ("processes", "words", "message"),
        [
            ("two", ["program.py"], "PROCESSES: expected a number of at least 1, got 'two'"),
            ("0", ["program.py"], "PROCESSES: expected a number of at least 1, got '0'"),
            ("2", ["--nnodes", "2", "program.py"], "use torchrun for several machines"),
            ("2", ["--bogus", "program.py"], "unrecognized arguments: --bogus; `auto_torchrun --help`"),
            ("2", ["-m"], "the following arguments are required: training_script"),
            ("2", ["nothing.py"], "there is no file 'nothing.py'; a module follows -m"),
            ("2", ["-m", "vq.tran", "x"], "there is no module 'vq.tran'"),
            ("2", ["-m", "nothing.at.all"], "there is no module 'nothing.at.all'"),
        ],
    )
    def test_refused(
        self, processes: str, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PROCESSES", processes)
        with pytest.raises(UserError, match=message):
            auto_torchrun.main(words)
