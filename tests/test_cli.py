from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pandas as pd
import pytest

from automl_prune import cli
from automl_prune.files import load_tensors
from automl_prune.terminal import Terminal

COMMANDS = (
    "search",
    "train",
    "sparsify",
    "one-shot",
    "sensitivity",
    "progressive",
    "profile",
    "status",
    "front",
    "export",
    "report",
    "worker",
    "storage-proxy",
)
DIGITS = Path(__file__).parents[1] / "experiments" / "digits" / "config.yaml"
# a tiny network and training split, so that an epoch takes a moment
QUICK = ["--set", "model.args.width=4", "--set", "data.validation=800", "--set", "data.test=800"]
SHORT = [*QUICK, "--set", "training.epochs=1"]

Run: TypeAlias = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs the command line in this process, in an empty folder: (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setenv("COLUMNS", "140")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in a shell's background ignores it

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["automl-prune", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert isinstance(ended.value.code, int)
        return ended.value.code, *capsys.readouterr()

    yield call
    for number, handler in before.items():
        signal.signal(number, handler)


def test_help_names_every_command_and_each_has_an_example(run: Run) -> None:
    status, out, _ = run("--help")
    assert status == 0
    assert all(name in out for name in COMMANDS)
    for name in COMMANDS:
        status, out, _ = run(name, "--help")
        assert status == 0
        assert f"Example: automl-prune {name} " in out


def test_help_never_loads_the_heavy_packages() -> None:
    code = (
        "import sys; sys.argv = ['automl-prune', '--help']\n"
        "from automl_prune.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'optuna', 'onnx', 'plotly', 'pandas', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "automl_prune", "--version"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("automl-prune ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["train"], "Missing argument"),
        (["train", str(DIGITS), "--set"], "requires an argument"),
        (["train", str(DIGITS), "--ste", "a=1"], "No such option"),
        (["search", str(DIGITS), "--trials", "0"], "--trials"),
        (["search", str(DIGITS), "--trials", "many"], "--trials"),
        (["search", str(DIGITS), "--log", "wandb:me"], "write it as mlflow:URI or tensorboard:DIR"),
        (["train", str(DIGITS), "--sparse", "weights"], "'weights' is not one of 'bn', 'kernel'"),
        (["train", str(DIGITS), "--set", "training.sparse.bn=0"], "training.sparse.bn"),
        (["sparsify", str(DIGITS), "--amount", "1.5"], "amount is 1.5"),
        (["sparsify", str(DIGITS), "--method", "l2"], "method 'l2' is unknown"),
        (["sensitivity", str(DIGITS), "--criterion", "l3", *SHORT], "unknown name 'l3'"),
        (["sensitivity", str(DIGITS), "--ratio", "25", *SHORT], "prune ratios are [25.0]"),
        (["progressive", str(DIGITS), *SHORT, "--set", "budget.macs=0.0001"], "cannot be reached"),
        (["progressive", str(DIGITS), "--set", "evaluation.finetune_steps=0"], "evaluation.finetune_steps is 0"),
        (["train", "none.yaml"], "none.yaml does not exist"),
        (["train", str(DIGITS), "--set", "search.trails=3"], "unknown key 'search.trails'; did you mean 'trials'"),
        (["train", str(DIGITS), "--set", "search.trials"], "write it as section.key=value"),
        (["train", str(DIGITS), "--set", "model.factory=nowhere:net"], "No module named 'nowhere'"),
        (["train", str(DIGITS), "--set", "model.factory=automl_prune.models:resnet9"], "did you mean 'resnet8'"),
        (["train", str(DIGITS), "--set", "data={name: fashion_mnist, root: none}"], "dataset-fashion-mnist"),
        (["train", str(DIGITS), "--set", "data={name: cifar10, root: none}"], "cifar-10-batches-py"),
        (["train", str(DIGITS), "--set", "device=abacus"], "device 'abacus' cannot be used here"),
        (["search", str(DIGITS), "--set", "model.weights=none.safetensors"], "none.safetensors do not exist"),
        (["search", str(DIGITS), "--set", "space=none.yaml"], "none.yaml"),
        (["status", "none"], "none holds no study"),
        (["front", "none"], "none holds no study"),
        (["report", "none"], "none holds no study"),
        (["export", "none", "--trial", "1"], "none holds no study"),
        (["export", "none"], "either --trial N or --budget"),
        (["retarget", "none", "--budget", "macs=0.3"], "none holds no study"),
        (["retarget", "none", "--budget", "macs=["], "--budget 'macs=['"),
        (["search", str(DIGITS), "--set", "model.args.num_classes=5"], "cannot be trained on these data"),
        (["retarget", "none", "--budget", "macs"], "--budget 'macs': write it as metric=value"),
        (["retarget", "none", "--budget", "mac=0.3"], "did you mean 'macs'"),
        (["retarget", "none"], "Missing option '--budget'"),
    ],
)
def test_wrong_input_is_one_message_and_status_2(run: Run, arguments: list[str], message: str) -> None:
    status, out, err = run(*arguments)
    assert status == 2
    assert message in err
    assert "Traceback" not in out + err
    assert err.count("Error: ") == 1


def test_no_arguments_show_the_help(run: Run) -> None:
    status, out, err = run()
    assert status == 2
    assert "Usage: automl-prune" in out + err


def test_train_writes_weights_that_say_how_they_were_made(run: Run, tmp_path: Path) -> None:
    sets = [*QUICK, "--set", "training.epochs=1", "--set", "search.seed=3", "--output", "w.safetensors"]
    status, out, _ = run("train", DIGITS, *sets)
    assert status == 0
    assert "Epoch 1/1: loss" in out
    assert "wrote w.safetensors" in out
    _, metadata = load_tensors(tmp_path / "w.safetensors")
    assert metadata["seed"] == "3"
    assert metadata["command"].startswith("automl-prune train ")
    assert "--set search.seed=3" in metadata["command"]
    assert 0 <= float(metadata["val"]) <= 1
    assert 0 <= float(metadata["test"]) <= 1
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]  # the checkpoint is gone


def test_sparse_training_is_written_beside_the_dense_weights(run: Run, tmp_path: Path) -> None:
    sets = [*QUICK, "--set", "training.epochs=1", "--set", "model.weights=w/dense.safetensors"]
    status, out, _ = run("train", DIGITS, *sets, "--sparse", "kernel")
    assert status == 0
    assert "one that nothing holds shrinks by" in out
    folder = tmp_path / "w"
    names = [f"dense.sparse-kernel.{end}" for end in ("safetensors", "scales.html", "scales.json")]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert json.loads((folder / names[2]).read_text())["start"] == "before: initial weights"
    assert json.loads(load_tensors(folder / names[0])[1]["regulariser"]) == {"kind": "kernel", "strength": 0.02}
    assert run("train", DIGITS, *sets)[0] == 0
    assert run("train", DIGITS, *sets, "--sparse", "kernel", "--force")[0] == 0
    change = json.loads((folder / names[2]).read_text())
    assert change["start"] == "before: trained without the penalty"
    assert sum(map(sum, change["after"].values())) < sum(map(sum, change["before"].values()))


def test_sparsify_tells_what_it_gives_and_what_it_does_not(run: Run, tmp_path: Path) -> None:
    arguments = ["sparsify", DIGITS, *QUICK, "--set", "training.epochs=2", "--run-dir", "r", "--finetune-steps", "3"]
    status, out, _ = run(*arguments, "--method", "global", "--amount", "0.9")
    assert status == 0
    for words in ("dense", "masked", "norms recalibrated", "fine-tuned 3 steps", "all parameters", "It is not faster"):
        assert words in out
    numbers = json.loads((tmp_path / "r" / "sparse-global-0.9.json").read_text())
    tensors, metadata = load_tensors(tmp_path / "r" / numbers["path"])
    counted = sum(layer["zeros"] for layer in numbers["layers"])
    assert counted == sum(int((tensors[f"{layer['layer']}.weight"] == 0).sum()) for layer in numbers["layers"])
    assert json.loads(metadata["masking"])["method"] == "global"
    assert numbers["macs"][0] == numbers["macs"][1]
    assert numbers["sparse"]["compressed"] < 0.5 * numbers["dense"]["compressed"]
    assert numbers["sparse"]["plain"] == (tmp_path / "r" / numbers["path"]).stat().st_size
    status, _, err = run(*arguments, "--method", "global", "--amount", "0.9")
    assert status == 2
    assert "exists; add --force" in err


def test_sensitivity_is_a_table_a_csv_and_a_page(run: Run, tmp_path: Path) -> None:
    arguments = ["sensitivity", DIGITS, *SHORT, "--run-dir", "r", "--ratio", "0.5", "--samples", "100"]
    status, out, _ = run(*arguments)
    assert status == 0
    for words in ("layer3.0.conv2", "50.0 % removed", "drops below that", "in points"):
        assert words in out
    frame = pd.read_csv(tmp_path / "r" / "sensitivity.csv")
    assert set(frame.samples) == {128}  # two batches of 64
    assert (tmp_path / "r" / "sensitivity.html").stat().st_size > 100_000
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "r" / "sensitivity").iterdir()}
    assert len(stored) == 2  # as cut, and reconstructed
    assert set(frame.variant) == {"norms recalibrated", "reconstructed and norms recalibrated"}
    assert run(*arguments)[1].splitlines()[-12:] == out.splitlines()[-12:]
    assert {path: path.stat().st_mtime_ns for path in stored} == stored, "nothing was measured again"


def test_progressive_ends_in_a_verified_model(run: Run, tmp_path: Path) -> None:
    arguments = ["progressive", DIGITS, *SHORT, "--run-dir", "r", "--steps", "2", "--samples", "64"]
    arguments += ["--set", "evaluation.finetune_steps=2", "--set", "evaluation.finetune_epochs=0.2"]
    status, out, _ = run(*arguments)
    assert status == 0
    assert "exported and verified in r/progressive" in out
    manifest = json.loads((tmp_path / "r" / "progressive" / "manifest.json").read_text())
    assert manifest["costs"]["macs"]["ratio"] <= 0.5
    assert manifest["origin"] == "progressive pruning"
    assert all(f"{cut['group']} cut to {cut['width']}" in out for cut in manifest["cuts"])
    status, _, err = run(*arguments)
    assert status == 2
    assert "holds a finished model" in err


def test_train_replaces_a_file_only_by_force(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "w.safetensors"
    output.write_bytes(b"mine")
    arguments = ["train", DIGITS, *QUICK, "--set", "training.epochs=1", "--output", output]
    status, _, err = run(*arguments)
    assert status == 2
    assert "exists; add --force" in err
    assert output.read_bytes() == b"mine"
    assert run(*arguments, "--force")[0] == 0
    assert load_tensors(output)[1]["seed"] == "0"


def test_passwords_on_the_command_line_are_not_recorded(run: Run, tmp_path: Path) -> None:
    (tmp_path / "users_data_by_url.py").write_text(
        "from automl_prune.tasks import tasks\n\n"
        "def load(*, url):\n    assert 'hunter2' in url\n    return tasks['digits'](validation=800, test=800)\n"
    )
    data = "data={factory: 'users_data_by_url:load', url: 'postgresql://me:hunter2@host/db'}"  # found where we run
    sets = ["--set", data, "--set", "model.args.width=4", "--set", "training.epochs=1", "--output", "w.safetensors"]
    status, _, err = run("train", DIGITS, *sets)
    assert (status, err) == (0, "")
    _, metadata = load_tensors(tmp_path / "w.safetensors")
    assert "hunter2" not in str(metadata)
    assert "me@host" in metadata["command"]


def test_a_place_that_cannot_be_written_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    arguments = [*QUICK, "--set", "training.epochs=1", "--output", tmp_path / "file" / "w.safetensors"]
    status, out, err = run("train", DIGITS, *arguments)
    assert status == 2
    assert f"Error: Not a directory ({tmp_path / 'file'}" in err or f"Error: File exists ({tmp_path / 'file'}" in err
    assert "Traceback" not in out + err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_exits_130_and_the_same_command_resumes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    say = Terminal.say

    def say_and_signal(self: Terminal, message: str) -> None:
        say(self, message)
        if message.startswith("Epoch 1/2"):
            os.kill(os.getpid(), number)  # by the process itself, so that no clock decides where it is hit

    arguments = ["train", DIGITS, *QUICK, "--set", "training.epochs=2", "--output", "w.safetensors"]
    monkeypatch.setattr(Terminal, "say", say_and_signal)
    status, out, err = run(*arguments)
    assert status == 130
    assert "Epoch 1/2" in out
    assert "Epoch 2/2" not in out
    assert "The same command resumes" in err
    assert "Traceback" not in err
    assert not (tmp_path / "w.safetensors").exists()
    status, out, err = run(*arguments)
    assert (status, err) == (0, "")
    assert "Resuming the training" in out
    assert "Epoch 1/2" not in out
    assert "Epoch 2/2" in out
    assert (tmp_path / "w.safetensors").is_file()


def test_one_shot_prints_its_table_and_exports(run: Run) -> None:
    status, out, err = run("one-shot", DIGITS, *SHORT, "--criterion", "l1", "--widths", "global", "--at-once")
    assert status == 0, err
    assert "uniform l1, only cut" in out
    assert "global l1" in out
    assert Path("runs/digits/models/one-shot-l1-global/manifest.json").is_file()
    status, _, err = run("one-shot", DIGITS, *SHORT, "--criterion", "l3")
    assert status == 2
    assert "unknown name 'l3'; did you mean" in err


def test_events_are_json_lines_that_end_with_the_result(run: Run) -> None:
    status, out, err = run("one-shot", DIGITS, *SHORT, "--criterion", "l1", "--at-once", "--json")
    assert (status, err) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    assert {"stage_started", "progress", "stage_ended", "message", "epoch", "model"} <= {e["event"] for e in events}
    assert events[-1]["event"] == "result"
    assert events[-1]["path"] == "runs/digits/models/one-shot-l1-uniform"
    assert events[-1]["models"]["uniform l1"]["macs"] < events[-1]["models"]["dense"]["macs"]


def test_an_error_is_the_last_event_and_a_message_on_stderr(run: Run) -> None:
    status, out, err = run("search", DIGITS, "--json", "--set", "search.trails=3")
    assert status == 2
    (event,) = [json.loads(line) for line in out.splitlines()]
    assert (event["event"], event["status"]) == ("error", 2)
    assert f"Error: {event['message']}" in err


def test_a_fault_of_the_disk_is_an_event_too(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    status, out, _ = run("search", DIGITS, "--run-dir", tmp_path / "file", "--json")
    assert status == 2
    event = json.loads(out.splitlines()[-1])
    assert (event["event"], event["status"]) == ("error", 2)
    assert "check the path, its permissions and free space" in event["message"]
