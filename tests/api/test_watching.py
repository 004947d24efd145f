from __future__ import annotations

from dataclasses import replace

from automl_prune.api.watching import Watcher
from automl_prune.study.record import StudyRecord
from automl_prune.view import FrontSoFar, News, SearchStarted, Silent, TrialEnded
from tests.report.conftest import Recipe, make
from tests.study.synthetic import spec

RECORD = make(Recipe(trials=30))
SPEC = replace(spec(30), context=RECORD.context)


class Listener(Silent):
    def __init__(self) -> None:
        self.news: list[News] = []
        self.steps: list[tuple[int, int, str]] = []

    def tell(self, news: News) -> None:
        self.news.append(news)

    def stage_is(self, done: int, total: int, note: str = "") -> None:
        self.steps.append((done, total, note))


def after(count: int) -> StudyRecord:
    waiting = tuple(
        replace(t, state="waiting", evaluation=None, feasible=None, finished=None) for t in RECORD.trials[count:]
    )
    return replace(RECORD, trials=(*RECORD.trials[:count], *waiting), finalists=())


def test_every_trial_is_told_once_with_its_result() -> None:
    view = Listener()
    watcher = Watcher(view, view.stage_is, SPEC, None)
    for count in (1, 2, 20, 20, 30):
        watcher.look(after(count))
    trials = [news for news in view.news if isinstance(news, TrialEnded)]
    assert [news.trial for news in trials] == list(range(30))
    for news in trials:
        trial = RECORD.trials[news.trial]
        assert news.state == trial.state
        assert news.reason == trial.reason
        assert news.score == (trial.evaluation.score.value if trial.evaluation else None)
    assert view.steps[-1][:2] == (30, 30)


def test_trials_of_an_earlier_session_are_no_news_but_their_front_is_shown() -> None:
    view = Listener()
    watcher = Watcher(view, view.stage_is, SPEC, after(20))
    watcher.look(after(21))
    assert [news.trial for news in view.news if isinstance(news, TrialEnded)] == [20]
    started, front = view.news[:2]
    assert isinstance(started, SearchStarted)
    assert [(news.trial, news.finished) for news in started.earlier] == [(number, number + 1) for number in range(20)]
    assert isinstance(front, FrontSoFar)
    assert view.steps[0][0] == 20


def test_the_front_is_the_studys_and_its_last_point_the_best() -> None:
    view = Listener()
    Watcher(view, view.stage_is, SPEC, after(30))
    (front,) = [news for news in view.news if isinstance(news, FrontSoFar)]
    feasible = {t.number: t.evaluation for t in RECORD.trials if t.evaluation and t.feasible}
    assert {spot.trial for spot in (*front.points, *front.others)} == set(feasible)
    best = max(evaluation.score.value for evaluation in feasible.values())
    assert front.points[-1].score == best
    assert view.steps[-1][2] == f"best accuracy {100 * best:.2f} %"
