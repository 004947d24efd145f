"""Files and directories that are either complete or absent: made in a hidden place, synced, then renamed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from automl_prune.errors import CheckpointError

_SEAL = "sha256"
"""Where the metadata of a file of tensors hold the digest of all else in it."""


_TEMPORARY = ".tmp"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path for a file that the block writes; it becomes ``path`` when the block ends well."""
    with _workplace(path) as place:
        temporary = place / path.name
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    sync_directory(path.parent)


@contextmanager
def published(directory: Path) -> Iterator[Path]:
    """A temporary directory that becomes ``directory`` when the block ends well, and vanishes if not.

    So a directory under its final name is always complete. One that was there before stays until the new one is
    finished, and comes back if it cannot be replaced.
    """
    with _workplace(directory) as place:
        new, old = place / "new", place / "old"
        new.mkdir()
        yield new
        if directory.exists():
            directory.rename(old)
        try:
            new.rename(directory)
        except BaseException:  # a process that is told to stop between the two, too
            if old.exists() and not directory.exists():
                old.rename(directory)
            raise
    sync_directory(directory.parent)


@contextmanager
def _workplace(target: Path) -> Iterator[Path]:
    """A hidden directory beside a file or directory that is being made; locked, so that ``sweep`` leaves it alone."""
    target.parent.mkdir(parents=True, exist_ok=True)
    place, lock = _locked_directory(target)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(lock)


def _locked_directory(target: Path) -> tuple[Path, int]:
    while True:
        place = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=_TEMPORARY))
        lock = os.open(place, os.O_RDONLY)
        with suppress(OSError):  # where directories cannot be locked (NFS), nothing is swept either
            fcntl.flock(lock, fcntl.LOCK_EX)
        if place.exists():
            return place, lock
        os.close(lock)  # it was swept before it was locked


def sweep(directory: Path) -> None:
    """Remove what killed processes left half made in a directory, and put back what they were about to replace."""
    for place in directory.glob(f".*{_TEMPORARY}"):
        try:
            lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue  # gone meanwhile, or no directory of ours
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            target = directory / place.name.removesuffix(_TEMPORARY).rpartition(".")[0].removeprefix(".")
            if (place / "old").exists() and not target.exists():
                (place / "old").rename(target)
            shutil.rmtree(place, ignore_errors=True)
        except OSError:
            continue  # somebody is at work there
        finally:
            os.close(lock)


@cache
def _umask() -> int:
    """What this process withholds from others in the files it makes; asking for it means setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def sync_directory(path: Path) -> None:
    """Make renames in a directory durable, where the system lets it be opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems cannot; the file itself is synced
        pass
    finally:
        os.close(descriptor)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the system cannot; a file that is there, or no source, is left alone.

    Only for files that are replaced as a whole, never written in place: then neither name changes the other.
    """
    if target.exists() or not source.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, readable (indented) and strict (NaN raises ``ValueError``)."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; a missing or damaged one raises ``CheckpointError``."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}); restore it") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); restore or delete it") from error


def write_sealed(path: Path, value: Any) -> None:
    """Write JSON that only this package reads, atomically, with a digest that ``read_sealed`` verifies."""
    write_json(path, {"sha256": _digest(value), "content": value})


def read_sealed(path: Path) -> Any:
    """Read what ``write_sealed`` wrote; a missing or damaged file raises ``CheckpointError``."""
    value = read_json(path)
    if not isinstance(value, dict) or "content" not in value or value.get("sha256") != _digest(value["content"]):
        raise CheckpointError(f"{path} is damaged, or was changed by hand; delete it to make it again")
    return value["content"]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Hexadecimal SHA-256 over names, shapes, types and values, independent of order and device."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write safetensors atomically, with a digest that ``load_tensors`` verifies."""
    # safetensors refuses tensors that share memory; those that have their own are not doubled
    storages = Counter(tensor.untyped_storage().data_ptr() for tensor in tensors.values())
    own = {
        name: tensor.clone() if storages[tensor.untyped_storage().data_ptr()] > 1 else tensor
        for name, tensor in ((name, tensor.detach().cpu().contiguous()) for name, tensor in tensors.items())
    }
    with atomic_path(path) as temporary:
        save_file(own, temporary, metadata={**(metadata or {}), _SEAL: _seal(own, metadata or {})})


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read safetensors and their metadata; a missing or damaged file raises ``CheckpointError``.

    Files of ``save_tensors`` are verified against their digest; others, which have none, are taken as they are.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing or not a file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            # cloned: a mapped tensor dies with its file when somebody overwrites that in place
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a complete safetensors file ({error}); restore it or train again"
        ) from error
    seal = metadata.pop(_SEAL, None)
    if seal is not None and seal != _seal(tensors, metadata):
        raise CheckpointError(
            f"{path} is damaged: its values are not those that were written; restore it, or make it again"
        )
    return tensors, metadata


def _seal(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    return _digest([tensors_digest(tensors), sorted(metadata.items())])
