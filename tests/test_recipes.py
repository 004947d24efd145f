"""The recipes of docs/how-to/cluster.md: their syntax, and that what they call exists."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from automl_prune.cli import app

RECIPES = Path(__file__).parents[1] / "docs" / "recipes"
SCRIPTS = sorted([*RECIPES.glob("*.sbatch"), *RECIPES.glob("*.sh")])


def _options(command: str) -> set[str]:
    """The options of a command of automl-prune."""
    found = typer.main.get_command(app).get_command(None, command)  # type: ignore[attr-defined]  # a group of commands
    assert found is not None, f"automl-prune has no command {command}"
    return {name for parameter in found.params for name in parameter.opts}


def _check_call(words: list[str]) -> None:
    assert words[0] == "automl-prune"
    assert {word for word in words[2:] if word.startswith("--")} <= _options(words[1])


def _documents() -> Iterator[dict[str, Any]]:
    yield from yaml.safe_load_all((RECIPES / "kubernetes.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash_and_call_what_exists(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text
    calls = re.findall(r"^(?:srun|printf).*?(automl-prune .*)$", text, re.MULTILINE)
    assert calls
    for call in calls:
        _check_call(shlex.split(call))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_say_what_is_missing(script: Path) -> None:
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", str(script), "host"], capture_output=True, text=True, env=environment)
    assert done.returncode != 0
    assert "STORAGE: a database URL" in done.stderr


def test_slurm_warns_before_it_ends_and_requeues() -> None:
    for script in RECIPES.glob("*.sbatch"):
        directives = dict(
            line.removeprefix("#SBATCH --").partition("=")[::2]
            for line in script.read_text(encoding="utf-8").splitlines()
            if line.startswith("#SBATCH --")
        )
        assert directives["signal"] == "TERM@120"
        assert {"requeue", "ntasks", "cpus-per-task", "time"} <= directives.keys()


def test_ssh_runs_a_worker_on_every_machine(tmp_path: Path) -> None:
    """With an ``ssh`` that runs its command here, and an ``automl-prune`` that shows what it is given."""
    for name, body in {
        "ssh": 'while [[ "$1" == -* ]]; do [[ "$1" == -o ]] && shift; shift; done; shift; exec bash -c "$*"',
        "automl-prune": "printf '<%s>' \"$@\"; echo",
        "bash": '[[ "$1" == -lc ]] && shift && exec /bin/bash -c "$@"; exec /bin/bash "$@"',  # keeps this PATH
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    url = "postgresql://me:$DB_PASSWORD@db/prune"
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "STORAGE": url,
        "STUDY": "flowers",
        "DATA": "/data/my flowers",
        "DB_PASSWORD": "hunter2",
    }
    script = RECIPES / "ssh.sh"
    done = subprocess.run(["/bin/bash", script, "a", "b"], capture_output=True, text=True, env=environment, timeout=30)
    assert done.returncode == 0, done.stderr
    call = f"<worker><--storage><{url}><--study><flowers><--wait><3600><--set><data.root=/data/my flowers>"
    assert sorted(done.stdout.splitlines()) == [f"a: {call}", f"b: {call}"]


def test_kubernetes_objects_fit_together() -> None:
    documents = list(_documents())
    assert all({"apiVersion", "kind", "metadata", "spec"} <= document.keys() for document in documents)
    named = {(document["kind"], document["metadata"]["name"]) for document in documents}
    assert len(named) == len(documents)
    jobs = [document["spec"] for document in documents if document["kind"] == "Job"]
    assert [job.get("parallelism", 1) for job in jobs] == [1, 8]
    assert all("completions" not in job for job in jobs)
    for job in jobs:
        pod = job["template"]["spec"]
        assert pod["restartPolicy"] == "OnFailure"
        (container,) = pod["containers"]
        _check_call([*container["command"], *container["args"]])
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
        for volume in volumes.values():
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim is None or ("PersistentVolumeClaim", claim) in named


def test_kubernetes_passwords_come_from_the_secret() -> None:
    text = (RECIPES / "kubernetes.yaml").read_text(encoding="utf-8")
    for url in re.findall(r"postgresql://[^\"]*", text):
        assert "prune:$DB_PASSWORD@prune-database/" in url
    assert ("Service", "prune-database") in {(d["kind"], d["metadata"]["name"]) for d in _documents()}
    for document in _documents():
        for container in document["spec"].get("template", {}).get("spec", {}).get("containers", []):
            secrets = [entry for entry in container["env"] if "PASSWORD" in entry["name"]]
            assert secrets
            assert all(entry["valueFrom"]["secretKeyRef"]["name"] == "prune-database" for entry in secrets)
