"""What is read of a database piece by piece is what Optuna reads of it whole."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import RDBStorage, get_storage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from sqlalchemy.pool import StaticPool

from automl_prune.study.codec import BEAT, CANDIDATE, OWNER, POINT, REASON, RESULT
from automl_prune.study.reader import TrialReader

BOTH = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]


@pytest.fixture
def database() -> Iterator[RDBStorage]:
    database = RDBStorage("sqlite://", engine_kwargs={"poolclass": StaticPool})
    yield database
    database.remove_session()
    database.engine.dispose()


def reader(database: RDBStorage) -> TrialReader:
    return TrialReader(database, get_storage(database))


@pytest.mark.parametrize("seed", range(3))
def test_whatever_others_do_every_look_is_what_the_database_holds(seed: int, database: RDBStorage) -> None:
    rng = random.Random(seed)
    study, other = (database.create_new_study(BOTH, name) for name in ("mine", "another"))
    often, seldom = reader(database), reader(database)
    open_trials: list[int] = []
    for step in range(50):
        action = rng.choice(["propose", "propose", "enqueue", "claim", "sign", "complete", "fail", "another"])
        if action in ("propose", "enqueue"):
            state = TrialState.RUNNING if action == "propose" else TrialState.WAITING
            attributes = {POINT: {"x": rng.random()}, CANDIDATE: {"group": {"keep": step}}}
            open_trials.append(database.create_new_trial(study, create_trial(state=state, user_attrs=attributes)))
        elif action == "another":
            database.create_new_trial(other, create_trial(state=TrialState.RUNNING, user_attrs={POINT: {"x": 1.0}}))
        elif open_trials:
            trial = rng.choice(open_trials)
            if action == "claim":
                database.set_trial_state_values(trial, TrialState.RUNNING)
            elif action == "sign":
                database.set_trial_user_attr(trial, OWNER, {"pid": step})
                database.set_trial_user_attr(trial, BEAT, step)
            elif action == "complete":
                database.set_trial_user_attr(trial, RESULT, {"evaluation": step})
                database.set_trial_state_values(trial, TrialState.COMPLETE, [rng.random(), float("inf")])
                open_trials.remove(trial)
            else:
                database.set_trial_user_attr(trial, REASON, "out of memory")
                database.set_trial_state_values(trial, TrialState.FAIL)
                open_trials.remove(trial)
        assert often.get_all_trials(study) == database.get_all_trials(study)
    for name in (study, other):
        assert seldom.get_all_trials(name) == database.get_all_trials(name)
        for state in TrialState:
            assert seldom.get_all_trials(name, states=[state]) == database.get_all_trials(name, states=[state])


def test_what_is_finished_is_not_read_again(database: RDBStorage) -> None:
    study = database.create_new_study(BOTH, "mine")
    for _ in range(3):
        database.create_new_trial(study, create_trial(values=[1.0, 2.0], user_attrs={RESULT: {}}))
    database.create_new_trial(study, create_trial(state=TrialState.RUNNING))
    looking = reader(database)
    first = looking.get_all_trials(study, deepcopy=False)
    second = looking.get_all_trials(study, deepcopy=False)
    assert [a is b for a, b in zip(first, second, strict=True)] == [True] * 3 + [False]
    copied = looking.get_all_trials(study)
    copied[0].user_attrs[RESULT]["spoiled"] = True
    assert looking.get_all_trials(study) == first


def test_a_study_with_parameters_is_read_as_optuna_does(database: RDBStorage) -> None:
    study = database.create_new_study(BOTH, "another's")
    looking = reader(database)
    assert looking.get_all_trials(study) == []
    running = database.create_new_trial(study)
    assert looking.get_all_trials(study) == database.get_all_trials(study)
    database.set_trial_param(running, "x", 0.5, FloatDistribution(0, 1))
    database.set_trial_system_attr(running, "sampler", "state")
    (found,) = looking.get_all_trials(study)
    assert (found.params, found.system_attrs) == ({"x": 0.5}, {"sampler": "state"})


def test_a_study_that_is_not_there_is_no_empty_study(database: RDBStorage) -> None:
    with pytest.raises(KeyError):
        reader(database).get_all_trials(7)
