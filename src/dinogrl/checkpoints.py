"""The only door to files of weights and state. Nothing pickled is ever executed; nothing half-written is ever left.

A checkpoint of ours is a ``.safetensors`` file: tensors by name, and in its header the kind, the format's version and JSON text
(the resolved recipe, the number of identities, the epoch ...). Foreign ``.pth`` files are read by torch's weights-only reader.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import secrets
import struct
import warnings
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as unpack
from safetensors.torch import save as pack
from safetensors.torch import save_file
from torch import Tensor

from dinogrl.errors import CheckpointError, DinogrlError, in_one_line

FORMAT = "1"
_SUM_BYTES = 4
# What torch's weights-only reader raises for files that are no weights: bytes that are no pickle lead it anywhere.
_UNREADABLE = (
    pickle.UnpicklingError,
    struct.error,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    ArithmeticError,
    AttributeError,
    TypeError,
    AssertionError,
)


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside, flush to disk, then rename: whoever reads ``path`` sees the old file or the new one, never a part."""
    with replacing(path) as beside:
        beside.write_bytes(content)


def part_beside(path: Path) -> Path:
    """Where to write what shall become ``path``: a hidden name that no other process takes, on whatever machine it is.

    Process ids would do on one machine; two that share a folder over a network have the same ones.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path beside ``path`` to write to; when the block ends well, that file takes ``path``'s place.

    An :class:`OSError` of the hidden file names ``path`` instead: nobody else has heard of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = part_beside(path)
    try:
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        if str(error.filename) != str(beside):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            beside.unlink()


def expect_no_file(folder: Path, purpose: str) -> None:
    """Raise :class:`DinogrlError` where a file has the name of a folder that is to be written, or written into."""
    if folder.exists() and not folder.is_dir():
        raise DinogrlError(f"{folder} is a file; give a folder for {purpose}")


def expect_writable(folder: Path, purpose: str = "the results", option: str = "--out") -> None:
    """Make ``folder`` and try it, before hours of work whose result would find no place.

    Raises :class:`DinogrlError` where it is a file or nothing can be written there; ``option`` is where another one is given.
    """
    expect_no_file(folder, purpose)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DinogrlError(f"cannot write into {folder}: {error.strerror}; give another {option}") from error


def expect_writable_file(path: Path, option: str = "--out") -> None:
    """The same of a file, and nothing is made: a folder that is not there yet is made by whoever writes.

    Raises :class:`DinogrlError` where ``path`` is a folder, and where its folder takes no file or cannot be.
    """
    if path.is_dir():
        raise DinogrlError(f"{path} is a folder; give the name of a file in it")
    expect_writable(nearest_folder(path), option=option)


def nearest_folder(path: Path) -> Path:
    """Of the folders above ``path``, the lowest that is there."""
    return next(folder for folder in path.parents if folder.exists())


def save(path: Path, tensors: Mapping[str, Tensor], kind: str, facts: Mapping[str, Any]) -> None:
    """Write named tensors and JSON facts to one file."""
    header = {"format": "pt", "dinogrl": FORMAT, "kind": kind, "facts": json.dumps(facts)}  # other readers ask for "format"
    with replacing(path) as beside:
        beside.touch()
        mode = beside.stat().st_mode
        with _writing(path):
            save_file(_whole(tensors), beside, metadata=header)
        _sort_header(beside)
        beside.chmod(mode)  # safetensors gives its files to their owner alone; the user's umask decides


def _whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As safetensors takes them: in main memory, each in one piece."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _sort_header(path: Path) -> None:
    """safetensors writes the entries of its metadata in any order; sorted, the same content gives the same bytes."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= length, "sorting adds nothing"
        file.seek(8)
        file.write(text.ljust(length))  # spaces fill the header up, as safetensors does itself


def pack_with_sum(tensors: Mapping[str, Tensor]) -> bytes:
    """Named tensors and a check sum as bytes, for files that are too many to be forced to the disk one by one."""
    content = pack(_whole(tensors))
    return content + zlib.crc32(content).to_bytes(_SUM_BYTES, "little")


def unpack_with_sum(content: bytes) -> dict[str, Tensor] | None:
    """What :func:`pack_with_sum` packed; None where the bytes are not what it gave."""
    body = content[:-_SUM_BYTES]
    if zlib.crc32(body).to_bytes(_SUM_BYTES, "little") != content[-_SUM_BYTES:]:
        return None
    try:
        return unpack(body)
    except SafetensorError:
        return None


def save_state_dicts(files: Mapping[Path, Mapping[str, Tensor]]) -> None:
    """Write plain state dicts for other programs to ``torch.load(path, weights_only=True)``: all files, or none of them."""
    with ExitStack() as stack:
        for path, tensors in files.items():
            # a clone each: of a view, torch would store all that the view is cut from
            clones = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
            beside = stack.enter_context(replacing(path))
            with _writing(path):
                torch.save(clones, beside)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Of a full disk and of a path that cannot be opened, safetensors and torch have errors of their own."""
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"cannot write {path}: {in_one_line(error, 160)}; make room there, or give another place") from error


def load(path: Path, kind: str, leave: Collection[str] = ()) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file that :func:`save` wrote with the same ``kind``: its tensors, but for those named in ``leave``, and its facts.

    Raises :class:`CheckpointError` for a file that is missing, truncated, of another program or of another kind.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}; give the path of a .safetensors file written by dinogrl")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("dinogrl") != FORMAT:
                raise CheckpointError(f"{path} is a safetensors file, but not a checkpoint of dinogrl")
            if header.get("kind") != kind:
                raise CheckpointError(f"{path} is a file of another kind: {header.get('kind')}, expected {kind}")
            facts = _facts(header.get("facts", "null"))
            if not isinstance(facts, dict):
                raise CheckpointError(f"{path} says nothing of what is in it: its header is broken")
            return _tensors(file, leave), facts
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"cannot read checkpoint {path}: {error}; it is truncated or no safetensors file") from error


def _facts(text: str) -> object:
    """JSON, or None for what is none: 5000 digits and 10,000 brackets are errors of Python's own."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def to_bytes(tensors: Mapping[str, Tensor], kind: str) -> bytes:
    """Named tensors as the content of a file, for where there is no file; the same tensors give the same bytes."""
    header = {"kind": kind}  # one entry: safetensors writes several in any order
    return pack(_whole(tensors), header)


def from_bytes(content: bytes, kind: str) -> dict[str, Tensor]:
    """What :func:`to_bytes` gave. Raises :class:`CheckpointError` for bytes that are truncated or something else."""
    try:
        return unpack(content)
    except SafetensorError as error:
        raise CheckpointError(f"the stored {kind} cannot be read: {error}") from error


def _tensors(file: Any, leave: Collection[str] = ()) -> dict[str, Tensor]:
    return {name: file.get_tensor(name) for name in file.keys() if name not in leave}  # noqa: SIM118 (no mapping: no __iter__)


def load_foreign(path: Path) -> dict[str, Any]:
    """Read somebody else's weights: ``.safetensors``, or ``.pth``/``.pt``/``.bin`` by the weights-only reader (no code is run).

    Returns the mapping as it lies in the file. Raises :class:`CheckpointError` for a missing or broken file, and for a pickle that
    holds anything but tensors and plain containers.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is a folder, expected a file of weights" if path.is_dir() else f"no weights at {path}")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                return _tensors(file)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"cannot read weights {path}: {error}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of bytes that are no weights; what they are is said below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"cannot read weights {path}: it is truncated, no torch file, or holds code (nothing in it was run): {first}"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a mapping of names to tensors")
    return content


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name from somebody else's weights (:func:`load_foreign`).

    The mapping may lie under ``state_dict`` or ``model``, and its names may begin with the ``module.`` of a parallel wrapper.
    Raises :class:`CheckpointError` where there is anything but tensors in it.
    """
    content = load_foreign(path)
    for wrapper in ("state_dict", "model"):
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    strange = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if strange or not content:
        found = f"more than tensors ({', '.join(strange[:4])})" if strange else "no tensors"
        raise CheckpointError(f"{path} holds {found}; expected a state dict: tensors by name")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def expect_keys(given: Iterable[str], expected: Iterable[str], source: str, limit: int = 8) -> None:
    """Raise :class:`CheckpointError` naming missing and unexpected keys, at most ``limit`` of each."""
    have, want = set(given), set(expected)
    problems = []
    for title, keys in (("missing", sorted(want - have)), ("unexpected", sorted(have - want))):
        if keys:
            more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
            problems.append(f"{len(keys)} {title}: {', '.join(keys[:limit])}{more}")
    if problems:
        raise CheckpointError(f"{source} does not fit this model: {'; '.join(problems)}")


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """16 hex digits that depend on every name and every value: two models share one only when they are the same."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()[:16]
