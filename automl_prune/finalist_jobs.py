"""Finalists' runs as jobs of the study: whoever has joined it trains them, and the weights come back verified."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from automl_prune.errors import CheckpointError
from automl_prune.files import link_or_copy, sha256
from automl_prune.finalists import Run, train_run
from automl_prune.session import Session
from automl_prune.study.artifacts import Artifact, Bucket, Folder
from automl_prune.study.crew import Member
from automl_prune.study.directory import RunDirectory
from automl_prune.study.jobs import Job, Jobs, read_jobs
from automl_prune.study.runner import read_study
from automl_prune.study.storage import StudyStorage
from automl_prune.view import Stage, View

_NAMED = 4
"""So many workers are named while they train; ``status`` names all."""


@dataclass(frozen=True, slots=True)
class RunJob:
    """A finalist's run that is offered to all workers.

    Attributes:
        run: What is trained.
        state: As of reading.
        reason: Why it failed, when it did.
        member: Who trains it, if anyone does.
    """

    run: Run
    state: str
    reason: str | None
    member: Member | None

    @classmethod
    def of(cls, job: Job) -> RunJob:
        """Read a job; one that is no run raises ``StudyError``."""
        run = Run.from_json(job.order)
        member = job.member and replace(job.member, trial=run.trial, run=run.number)
        return cls(run, job.state, job.reason, member)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {
            "trial": self.run.trial,
            "run": self.run.number,
            "learning_rate": self.run.finetuning.learning_rate,
            "state": self.state,
            "reason": self.reason,
            "worker": asdict(self.member) if self.member else None,
        }


def read_runs(storage: StudyStorage, study: str) -> tuple[RunJob, ...]:
    """The runs that a study offers, or offered last; nothing is written."""
    return tuple(RunJob.of(job) for job in read_jobs(storage, study))


def key_of(run: Run) -> str:
    """What a run's job is known by: all that its result depends on but the study."""
    recipe = json.dumps(run.finetuning.identity, sort_keys=True)
    return f"{run.trial}-{run.number}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"


@dataclass(slots=True)
class Trainer:
    """Trains runs that a study offers.

    Attributes:
        session: Of the study.
        storage: Where the study lives.
        study: Its name there.
        jobs: What it offers.
        directory: Where weights and checkpoints are written.
        store: Takes the weights for the searching process; None where that sees ``directory``.
        view: Where progress goes.
        trained: How many runs this process has trained.
    """

    session: Session
    storage: StudyStorage
    study: str
    jobs: Jobs
    directory: RunDirectory
    store: Folder | Bucket | None
    view: View
    trained: int = field(default=0, init=False)
    _stage: Stage | None = field(default=None, init=False)
    _shown: _Progress | None = field(default=None, init=False)

    @contextmanager
    def shown(self, title: str) -> Iterator[None]:
        """Show all runs, by whomever, as a stage while the block runs."""
        with self.view.stage(title) as self._stage:
            yield
            self.show()
        self._stage = None

    def show(self, steps: int = 0) -> None:
        """Show how far the runs are, of which this process has taken so many steps of its own."""
        if self._stage is None or not self.jobs.seen:
            return
        if self._shown is None or self._shown.jobs is not self.jobs.seen:
            self._shown = _Progress.of(self.jobs.seen)
        self._stage(min(self._shown.total, self._shown.done + steps), self._shown.total, self._shown.note)

    def train(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Do a job: ``study.jobs.Do``."""
        run, record = Run.from_json(order), read_study(self.storage, self.study)
        scored = train_run(self.session, record, run, self.directory, lambda step, total: self.show(step), self.view)
        weights = None
        if self.store is not None:
            path = run.weights(self.directory)
            weights = self.store.put(path, sha256(path)).to_json()
            path.unlink()
        self.trained += 1
        return {"run": asdict(scored), "weights": weights}

    def collect(self, runs: Sequence[Run], store: Folder | Bucket) -> dict[Run, str]:
        """Fetch the weights of runs that others have trained.

        What is missing or is not what was trained is left out, to be trained here.

        Returns:
            Why runs failed, by run; without those that no worker survived: this process may, alone.

        Raises:
            StudyError: The store cannot be reached.
        """
        by_key = {job.key: job for job in self.jobs.look()}
        failed = {}
        for run in runs:
            job = by_key.get(key_of(run))
            if job is None:
                continue
            if job.state == "failed":
                why = f"trial {run.trial}, run {run.number}: {job.reason}"
                if job.poison:
                    self.view.say(f"{why}. It is trained here, alone.")
                else:
                    failed[run] = str(job.reason)
            elif job.result is not None and job.result.get("weights") is not None:
                self._fetch(run, Artifact.from_json(job.result["weights"]), store)
        return failed

    def _fetch(self, run: Run, weights: Artifact, store: Folder | Bucket) -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="automl-prune-") as folder:
                found = store.get(weights, Path(folder))
                run.weights(self.directory).unlink(missing_ok=True)
                link_or_copy(found, run.weights(self.directory))
            store.remove(weights)
        except CheckpointError as error:
            self.view.say(f"Trial {run.trial}, run {run.number} is trained here, not taken from elsewhere: {error}")


@dataclass(frozen=True, slots=True)
class _Progress:
    """How far jobs are: steps done and in all, and in words."""

    jobs: Sequence[Job]
    done: int
    total: int
    note: str

    @classmethod
    def of(cls, jobs: Sequence[Job]) -> _Progress:
        runs = [RunJob.of(job) for job in jobs]
        finished = [run.run.finetuning.steps for run in runs if run.state in ("complete", "failed")]
        members = [f"trial {m.trial} run {m.run} on {m.host}:{m.pid}" for m in (run.member for run in runs) if m]
        more = [f"{len(members) - _NAMED} more"] if len(members) > _NAMED else []
        note = "; ".join([f"{len(finished)} of {len(runs)} runs", *members[:_NAMED], *more])
        return cls(jobs, sum(finished), sum(run.run.finetuning.steps for run in runs), note)
