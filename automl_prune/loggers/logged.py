"""A view that passes everything on and logs it too. A logger that fails is dropped with a warning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from textwrap import shorten

from automl_prune.errors import ConfigError
from automl_prune.loggers.base import Logger, Outcome
from automl_prune.loggers.mlflow import open_mlflow
from automl_prune.loggers.rows import TrialRows, best_row, dense_row, finalist_row
from automl_prune.loggers.tensorboard import open_tensorboard
from automl_prune.redaction import without_secrets
from automl_prune.study.directory import RunDirectory
from automl_prune.view import FinalistTrained, News, SearchEnded, SearchStarted, Stage, TrialEnded, View

_KINDS: Mapping[str, Callable[[str, RunDirectory], Logger]] = {"mlflow": open_mlflow, "tensorboard": open_tensorboard}


@contextmanager
def logged(view: View, targets: Sequence[str], run_dir: Path | str) -> Iterator[View]:
    """A view of one search that logs it as well.

    Args:
        view: Where its progress goes besides.
        targets: ``mlflow:URI`` or ``tensorboard:DIR`` each; none leaves the view as it is.
        run_dir: Of the search; which MLflow run is its own is remembered there.

    Raises:
        ConfigError: A target is malformed, or its package is not installed.
    """
    if not targets:
        yield view
        return
    directory = RunDirectory(Path(run_dir))
    both = Logged(view, {without_secrets(target): _open(target, directory) for target in targets})
    outcome: Outcome = "failed"
    try:
        yield both
        outcome = "finished"
    except KeyboardInterrupt:
        outcome = "interrupted"
        raise
    finally:
        both.close(outcome)


def _open(target: str, directory: RunDirectory) -> Logger:
    kind, _, place = target.partition(":")
    if kind not in _KINDS or not place:
        raise ConfigError(
            f"--log {without_secrets(target)!r}: write it as mlflow:URI or tensorboard:DIR, e.g. "
            "mlflow:http://localhost:5000 or tensorboard:runs/tensorboard"
        )
    return _KINDS[kind](place, directory)


class Logged:
    """The ``View`` that ``logged`` makes.

    Args:
        view: Where everything is passed on to.
        loggers: By what the user knows them by.
    """

    def __init__(self, view: View, loggers: Mapping[str, Logger]) -> None:
        self._view, self._loggers = view, dict(loggers)
        self._study: SearchStarted | None = None
        self._trials: TrialRows | None = None
        self._finalists: list[FinalistTrained] = []

    def stage(self, title: str) -> AbstractContextManager[Stage]:
        """The other view's."""
        return self._view.stage(title)

    def say(self, message: str) -> None:
        """The other view does."""
        self._view.say(message)

    def tell(self, news: News) -> None:
        """Pass news on and log those of the search; of finalists when it is done, by number."""
        self._view.tell(news)
        if isinstance(news, SearchStarted):
            self._study, self._trials = news, TrialRows(news)
            rows = [dense_row(news), *self._trials.add(news.earlier)]
            self._each(lambda logger: logger.start(news))
            self._each(lambda logger: logger.log(rows))
        elif isinstance(news, TrialEnded) and self._trials is not None:
            due = self._trials.add([news])
            if due:
                self._each(lambda logger: logger.log(due))
        elif isinstance(news, FinalistTrained):
            self._finalists.append(news)
        elif isinstance(news, SearchEnded) and self._study is not None:
            finalists = sorted(self._finalists, key=lambda finalist: finalist.trial)
            ends = [finalist_row(finalist, self._study.metric) for finalist in finalists]
            ends.append(best_row(news, self._study.requested))
            self._each(lambda logger: logger.log(ends))
            self._each(lambda logger: logger.finish(news))

    def close(self, outcome: Outcome) -> None:
        """The search is over, for this session at least."""
        self._each(lambda logger: logger.close(outcome))

    def _each(self, do: Callable[[Logger], None]) -> None:
        for target, logger in list(self._loggers.items()):
            try:
                do(logger)
            except Exception as error:
                del self._loggers[target]
                why = shorten(without_secrets(f"{type(error).__name__}: {error}"), 240, placeholder=" ...")
                self._view.say(
                    f"Warning: logging to {target} failed ({why}). The search goes on without it; once it can be "
                    "reached, the same command logs what is missing"
                )


def _proof(logged: Logged) -> View:
    return logged  # the type checker proves that it is one
