"""The last stage: the best candidates of a study, fine-tuned longer with several seeds, exported and verified."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from automl_prune.candidate import Candidate
from automl_prune.channels import prune
from automl_prune.checkpoints import Checkpoint
from automl_prune.costs.latency import cost_of
from automl_prune.errors import CheckpointError, ConfigError, StudyError
from automl_prune.evaluation import FineTuning
from automl_prune.export.bundle import MANIFEST, export_model
from automl_prune.files import load_tensors, read_json, save_tensors
from automl_prune.front import ParetoFront
from automl_prune.report.measured import latency_sentence
from automl_prune.report.table import completed, search_points
from automl_prune.seeding import derive_seed
from automl_prune.session import Session
from automl_prune.study.directory import RunDirectory
from automl_prune.study.record import Finalist, FinalistRun, StudyRecord
from automl_prune.study.runner import write_finalist
from automl_prune.study.storage import StudyStorage
from automl_prune.view import ModelExported, View

_PLAIN = re.compile(r"[A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Run:
    """One long fine-tuning.

    Attributes:
        trial: Whose candidate.
        number: Of the run among the trial's; its seed follows from it and the study's.
        finetuning: The recipe.
        kept: Tells the files of several recipes apart.
    """

    trial: int
    number: int
    finetuning: FineTuning
    kept: str = ""

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Run:
        """Rebuild it from ``to_json``; anything else raises ``StudyError``, for it may come from elsewhere."""
        try:
            recipe = {**value["finetuning"], "devices": tuple(value["finetuning"]["devices"])}
            run = cls(**{**value, "finetuning": FineTuning(**recipe)})
            if type(run.trial) is int and type(run.number) is int and _PLAIN.fullmatch(run.kept):
                return run
        except (KeyError, TypeError, ConfigError):
            pass
        raise StudyError(f"{value!r} is no run of a finalist; the study was not written by automl-prune")

    def weights(self, directory: RunDirectory) -> Path:
        """Where its weights and scores wait for the export."""
        kept = f"-{self.kept}" if self.kept else ""
        return directory.finalists / f"{self.trial}-{self.number}{kept}.safetensors"


Ahead = Callable[[Sequence[Run]], Mapping[Run, str]]
"""Has runs trained by all who work on the study, before they are asked for one after the other; may leave some out.

Returns why runs failed, by run."""


def choose(record: StudyRecord, count: int) -> tuple[int, ...]:
    """The trials that earn a long fine-tuning: spread over the front, and the best baseline to compare with.

    The front's best under the budget comes first, then its points at evenly spread ranks of cost. The best
    baseline by validation score takes part even when it is not on the front, so that the result can be set
    against it after equal training; it comes on top of ``count``.

    Args:
        record: The finished search.
        count: How many of the front's points.

    Returns:
        Trial numbers, best first; empty when nothing is asked for or feasible.
    """
    metric = record.context.metric
    front = ParetoFront.of(search_points(record), higher_is_better=metric.higher_is_better)
    by_cost = [point.trial for point in front.points]
    best = front.best()
    if best is None or not count:
        return ()
    chosen = [best.trial]
    wanted = min(count, len(by_cost))
    for step in range(wanted):
        rank = round(step * (len(by_cost) - 1) / max(1, wanted - 1))
        if by_cost[rank] not in chosen and len(chosen) < wanted:
            chosen.append(by_cost[rank])
    chosen += [trial for trial in reversed(by_cost) if trial not in chosen][: wanted - len(chosen)]
    baseline = best_baseline(record)
    if baseline is not None and baseline not in chosen:
        chosen.append(baseline)
    return tuple(chosen)


def best_baseline(record: StudyRecord) -> int | None:
    """The feasible baseline trial with the best validation score at the highest rung that one climbed, or None."""
    sign = 1 if record.context.metric.higher_is_better else -1
    rows = [
        (e.rung, sign * e.score.value, -t.number) for t, e in completed(record) if t.feasible and t.origin != "search"
    ]
    return -max(rows)[2] if rows else None


def train_finalist(
    session: Session,
    storage: StudyStorage,
    record: StudyRecord,
    trial: int,
    finetuning: FineTuning,
    seeds: int,
    directory: RunDirectory,
    study: str,
    *,
    view: View,
) -> None:
    """Fine-tune a trial's candidate with several seeds and store the scores; does nothing when that is done.

    What was fine-tuned otherwise before (longer, at another rate, with more seeds) is replaced: all finalists of a
    study are to be compared.

    Every run's weights are kept until the model is exported, and a checkpoint of the running one, so an interrupted
    finalist goes on where it was.

    Args:
        session: Of the study.
        storage: Where the finalist is recorded.
        record: The study as read.
        trial: Number of a completed trial.
        finetuning: The recipe.
        seeds: How many runs. Their seeds depend on the study's and their number alone, so that all finalists see the
            same batches.
        directory: Where the weights wait.
        study: Its name in the storage.
        view: Where progress goes.
    """
    known = next((finalist for finalist in record.finalists if finalist.trial == trial), None)
    if known is not None:
        changed = differing(known, finetuning, seeds)
        if not changed:
            return
        view.say(f"Trial {trial} was fine-tuned with other settings ({changed}); it is done anew")
    done = []
    with view.stage(f"Fine-tuning trial {trial}") as stage:
        for number in range(seeds):
            total, before = seeds * finetuning.steps, number * finetuning.steps
            on_step = _offset(stage, before, total)
            done.append(train_run(session, record, Run(trial, number, finetuning), directory, on_step, view))
    write_finalist(storage, Finalist(trial, tuple(done), finetuning.identity), study)
    show = session.task.metric.show
    scores = ", ".join(show(run.test.value) for run in done)
    view.say(f"Trial {trial}: test {session.task.metric.name} {scores}")


def differing(finalist: Finalist, finetuning: FineTuning, seeds: int) -> str:
    """What of a finalist's settings was not as it now is, in words; empty when all was, as far as is known."""
    before = {**finalist.recipe, "steps": finalist.runs[0].steps, "seeds": len(finalist.runs)}
    now = {**finetuning.identity, "seeds": seeds}
    return ", ".join(f"{key} {value}, now {now[key]}" for key, value in before.items() if now.get(key) != value)


def export_finalist(
    session: Session,
    record: StudyRecord,
    trial: int,
    finetuning: FineTuning,
    factory: Callable[[], nn.Module],
    directory: RunDirectory,
    *,
    view: View,
) -> None:
    """Export the finalist's run with the best validation score, verified; does nothing when that is done.

    Raises:
        ExportError: The exported files do not compute what the torch model computes.
    """
    finalist = next(f for f in record.finalists if f.trial == trial)
    sign = 1 if session.task.metric.higher_is_better else -1
    number = max(range(len(finalist.runs)), key=lambda n: sign * finalist.runs[n].val.value)
    candidate, run = candidate_of(record, trial), Run(trial, number, finetuning)
    if trial in dict(directory.exported()) and _is_of(directory.model(trial), candidate, session, run):
        _forget_runs(directory, trial)
        return
    plan = session.evaluator.plan(candidate)
    with view.stage(f"Exporting trial {trial}") as stage:
        scored = train_run(session, record, run, directory, stage, view)
        model = prune(session.model, plan)
        tensors, _ = load_tensors(run.weights(directory))
        model.load_state_dict(tensors)
        info = {
            "seed": scored.seed,
            "finetuning": asdict(finetuning),
            "val": scored.val.figures(),
            **_provenance(record, trial, candidate),
        }
        manifest = export_model(
            model,
            plan,
            session.task,
            directory.model(trial),
            dense=factory(),
            info=info,
            measure=session.measure_export,
        )
    _forget_runs(directory, trial)
    latency = latency_sentence(cost_of(manifest["latency"]), session.limits.get("latency"))
    view.say(f"Trial {trial}: exported and verified in {directory.model(trial)}. {latency}")
    view.tell(ModelExported(str(directory.model(trial)), trial))


def _is_of(folder: Path, candidate: Candidate, session: Session, run: Run) -> bool:
    """Whether an exported model is that of a run: another study, or other settings, may have left one there."""
    manifest = read_json(folder / MANIFEST)
    recipe = {key: manifest.get("finetuning", {}).get(key) for key in run.finetuning.identity}
    made = (manifest.get("candidate"), manifest.get("seed"), recipe)
    return made == (candidate.to_json(), _seed(session, run), run.finetuning.identity)


def _provenance(record: StudyRecord, trial: int, candidate: Candidate) -> dict[str, Any]:
    """Where an exported model comes from, for its manifest."""
    return {
        "study": record.context.name,
        "trial": trial,
        "origin": next(t.origin for t in record.trials if t.number == trial),
        "candidate": candidate.to_json(),
        "environment": dict(record.context.environment),
    }


def train_run(
    session: Session,
    record: StudyRecord,
    run: Run,
    directory: RunDirectory,
    on_step: Callable[[int, int], None],
    view: View,
) -> FinalistRun:
    """One run, read from its file when it was finished earlier, gone on with when it was interrupted."""
    known = trained_run(session, record, run, directory)
    if known is not None:
        return known
    path, candidate = run.weights(directory), candidate_of(record, run.trial)
    seed, identity = _seed(session, run), _identity(session, record, run)
    checkpoint = Checkpoint(path.with_suffix(".training.safetensors"), {"plan, recipe and seed": identity})
    try:
        trained = session.evaluator.finalist(candidate, run.finetuning, seed, checkpoint, on_step)
    except CheckpointError as error:
        view.say(f"Fine-tuning trial {run.trial} from its start: {error}")
        checkpoint.path.unlink(missing_ok=True)
        trained = session.evaluator.finalist(candidate, run.finetuning, seed, checkpoint, on_step)
    scored = FinalistRun(seed, trained.val, trained.test, trained.steps, trained.seconds)
    stored = {"identity": identity, "record": json.dumps(Finalist(run.trial, (scored,)).to_json())}
    save_tensors(path, trained.model.state_dict(), stored)
    checkpoint.path.unlink(missing_ok=True)
    return scored


def trained_run(session: Session, record: StudyRecord, run: Run, directory: RunDirectory) -> FinalistRun | None:
    """What a run scored that was finished earlier; None when its file is absent, damaged or another run's."""
    try:
        _, metadata = load_tensors(run.weights(directory))
        if metadata.get("identity") == _identity(session, record, run):
            return Finalist.from_json(json.loads(metadata["record"])).runs[0]
    except (CheckpointError, ValueError, KeyError):
        pass
    return None


def _seed(session: Session, run: Run) -> int:
    return derive_seed("finalist", session.seed, run.number)


def _identity(session: Session, record: StudyRecord, run: Run) -> str:
    plan = session.evaluator.plan(candidate_of(record, run.trial))
    return json.dumps([plan.digest, run.finetuning.identity, _seed(session, run)])


def _forget_runs(directory: RunDirectory, trial: int) -> None:
    """Remove what waited for a finalist's export."""
    for path in directory.finalists.glob(f"{trial}-*.safetensors"):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # other finalists may wait there, or none ever did
        directory.finalists.rmdir()


def candidate_of(record: StudyRecord, trial: int) -> Candidate:
    """What a completed trial evaluated."""
    return next(evaluation.candidate for t, evaluation in completed(record) if t.number == trial)


def _offset(stage: Callable[[int, int], None], before: int, total: int) -> Callable[[int, int], None]:
    return lambda done, _: stage(before + done, total)
