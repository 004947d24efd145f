"""The trials of a database, of which only what has changed since is read."""

from __future__ import annotations

import copy
import json
import threading
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb.models import (  # the tables have no public name; Optuna checks their version when it opens
    TrialIntermediateValueModel,
    TrialModel,
    TrialParamModel,
    TrialSystemAttributeModel,
    TrialUserAttributeModel,
    TrialValueModel,
)
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState
from sqlalchemy import Connection, exists, or_, select

from automl_prune.study.codec import CANDIDATE, POINT

_Attributes: TypeAlias = defaultdict[int, dict[str, Any]]
_Values: TypeAlias = defaultdict[int, list[float]]

_CONSTANT = (POINT, CANDIDATE)
"""Attributes that are stored together with their trial and never change: the largest, but for the result."""

_MORE = or_(
    *(
        exists().where(table.trial_id == TrialModel.trial_id)
        for table in (TrialParamModel, TrialSystemAttributeModel, TrialIntermediateValueModel)
    )
)
"""Whether a trial holds what those of this package do not."""


class _Row(NamedTuple):
    """A trial without what belongs to it in other tables."""

    id: int
    number: int
    state: OptunaState
    started: datetime | None
    completed: datetime | None
    more: bool


@dataclass(slots=True)
class _Study:
    """What is known of one study: its trials by id, in order of their numbers, and which may still change."""

    trials: dict[int, FrozenTrial] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, rows: Sequence[_Row], attributes: _Attributes, values: _Values) -> None:
        """Remember what was read."""
        for row in rows:
            before = self.trials[row.id].user_attrs if row.id in self.open else {}
            constant = {key: before[key] for key in _CONSTANT if key in before}
            self.trials[row.id] = _trial(row, constant | attributes[row.id], values[row.id])
            (self.open.discard if row.state.is_finished() else self.open.add)(row.id)


class TrialReader:
    """Reads a study's trials from a database: new ones whole, of unfinished ones what may have changed.

    Optuna reads every unfinished trial whole at every look, in seven statements and through its object mapper: with
    32 workers, who look at each other's trials whenever they have finished one, that was most of what a trial cost.
    Trials of a study are stored one after the other (Optuna locks the study's row meanwhile), so whoever has seen a
    trial has seen all that were stored before it.

    Args:
        database: What is read.
        other: Reads the studies that are not of this package: their trials have parameters or system attributes.
    """

    def __init__(self, database: RDBStorage, other: BaseStorage) -> None:
        self._database = database
        self._other = other
        self._studies: defaultdict[int, _Study] = defaultdict(_Study)
        self._others: set[int] = set()

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[OptunaState] | None = None
    ) -> list[FrozenTrial]:
        """As ``optuna.storages.BaseStorage.get_all_trials``."""
        study = self._studies[study_id]
        with study.lock:
            if study_id not in self._others:
                self._read(study_id, study)
            trials = [trial for trial in study.trials.values() if states is None or trial.state in states]
        if study_id in self._others or not study.trials:
            return self._other.get_all_trials(study_id, deepcopy, states)
        return copy.deepcopy(trials) if deepcopy else trials

    def _read(self, study_id: int, study: _Study) -> None:
        with self._database.engine.connect() as connection:
            rows = _changed(connection, study_id, study)
            if any(row.more for row in rows):
                self._others.add(study_id)
                return
            new = [row.id for row in rows if row.id not in study.open]
            attributes = _attributes(connection, new, study.open)
            values = _values(connection, [row.id for row in rows if row.state.is_finished()])
        study.take(rows, attributes, values)


def _changed(connection: Connection, study_id: int, study: _Study) -> list[_Row]:
    """New trials of a study, and those that were not finished when it was read last."""
    model = TrialModel
    columns = model.trial_id, model.number, model.state, model._datetime_start_utc, model._datetime_complete_utc, _MORE
    changed = model.trial_id > next(reversed(study.trials), -1)
    if study.open:
        changed = or_(changed, model.trial_id.in_(study.open))
    query = select(*columns).where(model.study_id == study_id, changed).order_by(model.trial_id)
    return [_Row(*row) for row in connection.execute(query)]


def _attributes(connection: Connection, new: Iterable[int], known: Iterable[int]) -> _Attributes:
    """User attributes by trial id: all of new trials, of known ones those that are not constant."""
    model = TrialUserAttributeModel
    query = select(model.trial_id, model.key, model.value_json)
    found: _Attributes = defaultdict(dict)
    for asked, ids in ((query, new), (query.where(model.key.not_in(_CONSTANT)), known)):
        for some in _parts(ids):
            for trial, key, text in connection.execute(asked.where(model.trial_id.in_(some))):
                found[trial][key] = json.loads(text)
    return found


def _values(connection: Connection, finished: Iterable[int]) -> _Values:
    """Objective values by trial id, in their order."""
    model = TrialValueModel
    query = select(model.trial_id, model.value, model.value_type).order_by(model.trial_id, model.objective)
    found: _Values = defaultdict(list)
    for some in _parts(finished):
        for trial, value, kind in connection.execute(query.where(model.trial_id.in_(some))):
            found[trial].append(model.stored_repr_to_value(value, kind))
    return found


def _parts(ids: Iterable[int], size: int = 500) -> Iterator[list[int]]:
    """Databases bound the number of values that a statement may name."""
    rest = iter(ids)
    while some := list(islice(rest, size)):
        yield some


def _trial(row: _Row, attributes: dict[str, Any], values: list[float]) -> FrozenTrial:
    return FrozenTrial(
        number=row.number,
        state=row.state,
        value=None,
        values=values or None,
        datetime_start=_local(row.started),
        datetime_complete=_local(row.completed),
        params={},
        distributions={},
        user_attrs=attributes,
        system_attrs={},
        intermediate_values={},
        trial_id=row.id,
    )


def _local(moment: datetime | None) -> datetime | None:
    """Optuna's tables hold times of UTC, its trials local ones, both without a zone."""
    return moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=None) if moment else None
