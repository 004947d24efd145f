"""What a study tells a process that joins it, from this or another machine: all it needs but the data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl_prune.errors import StudyError
from automl_prune.projection import Projector
from automl_prune.seeding import derive_seed
from automl_prune.study.artifacts import Artifact, Bucket, Folder, open_artifacts, publish
from automl_prune.study.codec import IDENTITY, INVITATION, PATIENCE, REQUESTED, decode_context, differences
from automl_prune.study.leases import Owner
from automl_prune.study.ledger import Ledger
from automl_prune.study.promotion import Promotion
from automl_prune.study.record import StudyContext
from automl_prune.study.spec import Evaluate, Event, Identify, OnEvent, StudySpec
from automl_prune.study.storage import StudyStorage
from automl_prune.study.worker import Worker


@dataclass(frozen=True, slots=True)
class Invitation:
    """What is known of a study by whoever joins it.

    Attributes:
        name: Of the study in its storage.
        context: What is searched, the configuration included.
        identity: What a member must have in common with the others, by name.
        requested: Trials in all.
        patience: Trials of the search without growth of the front after which it stops early; None never stops.
        artifacts: Where the files lie: a folder or ``s3://bucket/prefix``.
        files: The files by name.
    """

    name: str
    context: StudyContext
    identity: Mapping[str, Any]
    requested: int
    patience: int | None
    artifacts: str
    files: Mapping[str, Artifact]

    def verify(self, now: Mapping[str, Any]) -> None:
        """Check identity entries of one's own; entries that ``now`` lacks are not looked at.

        Raises:
            StudyError: Something differs; the message lists everything.
        """
        plain = json.loads(json.dumps(dict(now)))  # as it is stored: tuples are lists there
        found = differences({key: self.identity.get(key) for key in plain}, plain)
        if found:
            raise StudyError(
                f"this machine does not have what study {self.name!r} was started with; what differs:\n  "
                + "\n  ".join(found)
                + "\ngive it the same model, data and versions (--set data.root=... says where the data lie)"
            )


def invite(storage: StudyStorage, name: str, store: Folder | Bucket, files: Mapping[str, Path]) -> None:
    """Publish the files of a study that has been started, and say in the study where they are."""
    ledger = Ledger(storage, name)
    known = ledger.attributes().get(INVITATION, {})
    earlier = {}
    if known.get("artifacts") == store.location:
        earlier = {key: Artifact.from_json(value) for key, value in known["files"].items()}
    found = {key: value.to_json() for key, value in publish(store, files, earlier).items()}
    invitation = {"artifacts": store.location, "files": found}
    if invitation != known:
        ledger.set_attribute(INVITATION, invitation)


def read_invitation(storage: StudyStorage, name: str | None) -> Invitation:
    """The invitation of a study.

    Raises:
        StudyError: There is no such study, or it cannot be joined.
    """
    ledger = Ledger(storage, name)
    attributes = ledger.attributes()
    context = decode_context(attributes, ledger.name)
    stored = attributes.get(INVITATION)
    if not isinstance(stored, Mapping) or not {"artifacts", "files"} <= stored.keys() or not context.config:
        raise StudyError(
            f"study {ledger.name!r} cannot be joined: it was started from Python without a configuration, by another "
            "version, or is not ready yet; start it with: automl-prune search CONFIG"
        )
    files = {str(key): Artifact.from_json(value) for key, value in dict(stored["files"]).items()}
    return Invitation(
        name=ledger.name,
        context=context,
        identity=attributes[IDENTITY],
        requested=int(attributes[REQUESTED]),
        patience=attributes.get(PATIENCE),
        artifacts=str(stored["artifacts"]),
        files=files,
    )


def fetch(invitation: Invitation, directory: Path, location: str) -> dict[str, Path]:
    """The study's files by name, each with the digest the study was started with.

    Args:
        invitation: Of the study.
        directory: Where downloaded files are written.
        location: Where the artifacts are, seen from here.

    Raises:
        CheckpointError: A file is missing, or is not the one the study was started with; it is not used then.
    """
    store = open_artifacts(location)
    return {name: store.get(artifact, directory) for name, artifact in invitation.files.items()}


def take_part(
    invitation: Invitation,
    storage: StudyStorage,
    projector: Projector,
    identify: Identify,
    evaluate: Evaluate,
    *,
    attempts: int = 3,
    device: str,
    promotion: Promotion | None = None,
    requested: int | None = None,
    number: int | None = None,
    on_event: OnEvent,
) -> None:
    """Work on the study until its trials are finished, by whomever.

    Args:
        invitation: Of the study; the caller has verified that it has what the others have.
        storage: Where the study lives.
        projector: Of the same budget and space.
        identify: As in ``run_study``.
        evaluate: As in ``run_study``.
        attempts: As in ``StudySpec``.
        device: What this worker computes on.
        promotion: Which candidates climb to rung 1.
        requested: Trials in all; by default as many as the study wants.
        number: Of this worker; by default one that no other process has.
        on_event: Told what happens.
    """
    identity = invitation.identity
    spec = StudySpec(
        name=invitation.name,
        context=invitation.context,
        identity=identity,
        parameters=projector.parameters,
        strategy=str(identity["strategy"]),
        seed=int(identity["seed"]),
        requested=requested or invitation.requested,
        worker=derive_seed("member", *Owner.mine().to_json().values()) if number is None else number,
        device=device,
        attempts=attempts,
        promotion=promotion,
        patience=invitation.patience,
        network=projector.network(),
    )
    for notice in storage.notices:
        on_event(Event("notice", 0, spec.requested, message=notice))
    Worker(Ledger(storage, invitation.name), spec, projector.candidate, identify, evaluate, on_event).run()
