"""Answer a new budget from a finished search: what it evaluated and what it found are used, only little is new."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from automl_prune.api.launching import Team, open_to_workers
from automl_prune.api.preparing import check_overrides, keep_config, session_in
from automl_prune.api.reading import storage_of, study_name
from automl_prune.api.running import SearchResult, baselines_of, conclude, run, study_spec
from automl_prune.budget import Budget
from automl_prune.candidate import Candidate
from automl_prune.config import Config
from automl_prune.errors import ConfigError, StudyError
from automl_prune.evaluation import Evaluation
from automl_prune.evaluation.evaluator import Climb
from automl_prune.files import link_or_copy
from automl_prune.front import FrontPoint, ParetoFront
from automl_prune.report import FrontRow, front_table
from automl_prune.report.table import completed
from automl_prune.session import Session
from automl_prune.study.baselines import Baseline
from automl_prune.study.codec import SEARCH, within
from automl_prune.study.directory import RunDirectory
from automl_prune.study.invitation import Invitation, read_invitation
from automl_prune.study.record import StudyRecord, TrialRecord
from automl_prune.study.runner import points_with, read_study
from automl_prune.study.spec import Evaluate
from automl_prune.study.storage import open_storage
from automl_prune.view import Silent, View
from automl_prune.yaml_file import parse

PROFILES = 8
"""Of so many models of the front at most, spread over their costs, the proportions are tried at the new budget."""


def retarget(
    run_dir: Path | str,
    *,
    budget: Budget,
    output: Path | str | None = None,
    storage: str | None = None,
    overrides: Sequence[str] = (),
    trusted: Sequence[str] = (),
    view: View | None = None,
) -> SearchResult:
    """Answer a new budget, tighter or looser or of another cost, from a search that was started from a configuration.

    The answer is a study of its own in a run directory of its own, which ``status``, ``front``, ``report`` and
    ``export`` read like any other; the same call resumes it. It proposes nothing; it evaluates

    - the models of the search within the new budget that were fine-tuned shortly or are on the front of these:
      their evaluations are taken over;
    - the proportions of the search's front, brought to the new budget (``Projector.alike``);
    - the baselines at the new budget.

    Then its finalists are fine-tuned and exported. Calibration, channel scores and dense weights are the search's.

    Args:
        run_dir: Of the search.
        budget: The new one.
        output: The new run directory; by default ``RUN_DIR/retargets/macs=0.3``, say.
        storage: URL of the search's database, if it is not in its run directory. The new study is a journal file.
        overrides: ``"data.root=..."`` and the like, where the data lie on this machine, or the device.
        trusted: Packages whose functions the run directory's configuration may name.
        view: Where progress goes.

    Raises:
        StudyError: There is no such search, it has no completed trial, or it cannot be continued here.
        BudgetError: The budget cannot be reached.
        ConfigError: The search was started from Python, or its configuration names code that is not trusted.
    """
    check_overrides(overrides)
    view, parent = view or Silent(), RunDirectory(Path(run_dir))
    earlier = _Earlier.read(parent, storage)
    if not parent.config.is_file():
        raise ConfigError(f"{parent.config} is missing: the search was started from Python; search again from there")
    words = ",".join(bound.given for bound in budget.bounds.values())
    directory = RunDirectory(Path(output) if output else parent.path / "retargets" / words)
    config = Config.load(parent.config, overrides)
    config.check_trust(trusted)
    bounds = dict(bound.given.split("=", 1) for bound in budget.bounds.values())
    config = config.model_copy(
        update={
            "name": directory.path.resolve().name,
            "budget": {metric: parse(value, f"--budget {metric}={value}") for metric, value in bounds.items()},
        }
    )
    for shared in ("baseline", "calibration", "scores", "latency"):
        link_or_copy(getattr(parent, shared), getattr(directory, shared))
    session = session_in(directory, config, earlier.invitation, view)
    identity = session.identity(strategy=config.search.strategy)
    given = _points(session, parent, earlier.record)
    opened, name = open_storage(None, directory.path), study_name(directory, None)
    trials = points_with(opened, name, given)
    config = config.model_copy(update={"search": config.search.model_copy(update={"trials": trials})})
    evaluation, search = config.evaluation, config.search
    spec = study_spec(
        session, evaluation, identity, name, directory, config.resolved(), strategy=search.strategy, seed=search.seed
    )
    spec = replace(spec, requested=trials, baselines=given, searches=False)
    with open_to_workers(Team(), spec, session, opened, directory, view, url=None, config=config.resolved()) as ahead:
        keep_config(directory, config.resolved())
        record = run(session, spec, opened, view, earlier.evaluate(session))
        taken = sum(evaluation.seconds == 0 for _, evaluation in completed(record))
        view.say(f"{taken} evaluations reused from {parent.path}, {len(record.trials) - taken} new")
        return conclude(
            session, evaluation, opened, name, directory, record, config.build_model, view=view, ahead=ahead
        )


@dataclass(frozen=True, slots=True)
class _Earlier:
    """The search that has been done.

    Attributes:
        record: Of the search.
        invitation: What a process needs to have in common with it.
    """

    record: StudyRecord
    invitation: Invitation

    @classmethod
    def read(cls, directory: RunDirectory, storage: str | None) -> _Earlier:
        url = storage_of(directory, storage)
        opened, name = open_storage(url, directory.path), study_name(directory, url)
        record = read_study(opened, name)
        if not completed(record):
            raise StudyError(
                f"the search in {directory.path} has no completed trial, so there is nothing to answer from; run it "
                "first: automl-prune search"
            )
        return cls(record, read_invitation(opened, name))

    def evaluate(self, session: Session) -> Evaluate:
        """Takes evaluations over, unless a candidate earns a rung that it has not climbed yet."""
        known = {evaluation.plan_digest: evaluation for _, evaluation in completed(self.record)}
        evaluator, measured = session.evaluator, session.prices.identity.get("latency")
        if json.loads(json.dumps(measured)) != self.invitation.identity.get("latency"):
            known = {plan: _without_latency(evaluation) for plan, evaluation in known.items()}

        def evaluate(candidate: Candidate, seed: int, climb: Climb) -> Evaluation:
            found = known.get(evaluator.digest(candidate))
            if found is not None and not session.limits.keys() <= found.costs.keys():
                found = None  # a cost is bounded now that the search did not ask for
            if found is None or (found.rung == 0 and climb(found.rungs[0].score, found.costs)):
                return session.evaluate(candidate, seed, climb)
            rungs = tuple(replace(rung, steps=0, seconds=0.0) for rung in found.rungs)  # nothing was spent here
            return replace(found, candidate=candidate, rungs=rungs)

        return evaluate


def _without_latency(evaluation: Evaluation) -> Evaluation:
    """Without what was measured on another machine."""
    return replace(evaluation, costs={name: cost for name, cost in evaluation.costs.items() if name != "latency"})


def _points(session: Session, parent: RunDirectory, record: StudyRecord) -> tuple[Baseline, ...]:
    """What the new study evaluates, each model once: what can be taken over, baselines, proportions of the front."""
    projector, digest = session.projector, session.evaluator.digest
    every = [
        *(_given(session, e.candidate, trial, "") for trial, e in _reusable(record, session.limits)),
        *baselines_of(session, parent, levels=1),
        *(
            _given(session, projector.alike(row.candidate), _trial(record, row.trial), "proportions of ")
            for row in _spread(front_table(record, "search"), PROFILES)
        ),
    ]
    found: dict[str, Baseline] = {}
    for baseline in every:
        found.setdefault(digest(baseline.candidate or projector.candidate(baseline.point)), baseline)
    return tuple(found.values())


def _reusable(record: StudyRecord, limits: Mapping[str, float]) -> list[tuple[TrialRecord, Evaluation]]:
    """Trials within other limits that were fine-tuned shortly, or that no other of them beats at rung 0."""
    inside = [
        (trial, evaluation)
        for trial, evaluation in completed(record)
        if trial.reused_from is None and limits.keys() <= evaluation.costs.keys() and within(evaluation.costs, limits)
    ]
    cost = next(iter(limits))
    points = [FrontPoint(t.number, e.rungs[0].score.value, e.costs[cost].value, True, 0) for t, e in inside]
    front = ParetoFront.of(points, higher_is_better=record.context.metric.higher_is_better)
    return [(trial, e) for trial, e in inside if e.rung > 0 or trial.number in front.trials]


def _given(session: Session, candidate: Candidate, trial: TrialRecord, what: str) -> Baseline:
    """A model of the search as a point of the new study; a baseline of the search stays one."""
    point = session.projector.point_near(candidate, 1.0)
    own = None if session.projector.candidate(point) == candidate else candidate
    source = f"{what}trial {trial.number} of the search"
    if trial.origin == SEARCH:
        return Baseline(SEARCH, point, own, source)
    return Baseline(f"{trial.origin}, {source}", point, own)


def _trial(record: StudyRecord, number: int) -> TrialRecord:
    return next(trial for trial in record.trials if trial.number == number)


def _spread(rows: Sequence[FrontRow], count: int) -> list[FrontRow]:
    """At most so many of them, the first, the last, and evenly spread ones between."""
    if len(rows) <= count:
        return list(rows)
    return [rows[round(step * (len(rows) - 1) / (count - 1))] for step in range(count)]
