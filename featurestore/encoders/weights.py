"""Where an encoder's weights lie on this machine, and their hash. Loads no torch and imports no weight package.

`radfs weights add` and `fetch` leave a note for each encoder, `<name>.json` in the folder of notes: the files' paths
and hashes, and where they came from. The files themselves stay where they are.
"""

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import DataError
from ..fsio import write_atomic
from ..keys import canonical_json
from .sources import HubWeights, LocalWeights, PageWeights, PypiWeights, SeededWeights
from .spec import EncoderSpec

TENSOR_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names under which a Hugging Face folder keeps its tensors: either stands for the other."""


@dataclass(frozen=True)
class WeightsNote:
    """What this machine knows of an encoder's weights.

    Attributes:
        encoder: its name.
        paths: absolute, in the spec's order.
        sha256: of each file, when the note was made.
        origin: where they came from, in words: "added by hand" or "hub org/model@commit".
    """

    encoder: str
    paths: tuple[str, ...]
    sha256: tuple[str, ...]
    origin: str


def notes_folder() -> Path:
    """$RADFS_WEIGHTS, else radfs/weights in $XDG_DATA_HOME or ~/.local/share."""
    home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(os.environ.get("RADFS_WEIGHTS") or Path(home, "radfs", "weights")).expanduser().absolute()


def read_note(name: str) -> WeightsNote | None:
    """The note of the encoder called `name`, None where there is none.

    Raises:
        DataError: it is damaged.
    """
    path = notes_folder() / f"{name}.json"
    try:
        fields = json.loads(path.read_text())
        return WeightsNote(fields["encoder"], tuple(fields["paths"]), tuple(fields["sha256"]), fields["origin"])
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"the note on the weights of {name!r}, {path}, is damaged: remove it and add them again."
        ) from error


def write_note(note: WeightsNote) -> None:
    """Keep a note, in place of any older one."""
    folder = notes_folder()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / f"{note.encoder}.json", json.dumps(asdict(note), indent=1).encode())


def locate(spec: EncoderSpec) -> tuple[Path, ...] | None:
    """The weights' files in the spec's order; None where any is missing, and for weights that have no files."""
    match spec.weights:
        case SeededWeights():
            return None
        case LocalWeights(paths=paths):
            return _all_files(map(Path, paths))
        case PypiWeights() as source:
            return _in_package(source)
        case HubWeights() | PageWeights() as source:
            note = read_note(spec.name)
            if note is not None:
                return _all_files(map(Path, note.paths))
            return _in_hub_cache(source) if isinstance(source, HubWeights) else None


def is_available(spec: EncoderSpec) -> bool:
    """Whether this encoder can be built here without fetching anything."""
    return isinstance(spec.weights, SeededWeights) or locate(spec) is not None


def how_to_get(spec: EncoderSpec) -> str:
    """The next step for weights that are not here, as a sentence."""
    file = getattr(spec.weights, "files", ("FILE",))[0]
    own = f"--backbone {spec.asked} --weights FILE." if spec.asked else f"`radfs weights add {spec.name} {file}`."
    match spec.weights:
        case PypiWeights() as source:
            return f'run pip install "radfs[{source.extra}]".'
        case HubWeights() as source:
            gate = f" Its terms must be accepted first, at {source.page}." if source.gated else ""
            return f"run `radfs weights fetch {spec.asked or spec.name}`, or name a file that you have: {own}{gate}"
        case PageWeights() as source:
            return f"fetch {source.files[0]} in a browser from {source.page} , then name it: {own}"
        case _:
            return "check the paths."


def weight_files(spec: EncoderSpec) -> tuple[Path, ...]:
    """The weights' files in the spec's order.

    Raises:
        DataError: they are not here; says how to get them. Or they changed since they were added.
    """
    if isinstance(spec.weights, SeededWeights):
        raise ValueError(f"encoder {spec.name!r} draws its weights from a seed and has no files")
    files = locate(spec)
    if files is None:
        package = f" (PyPI package {spec.weights.distribution})" if isinstance(spec.weights, PypiWeights) else ""
        raise DataError(f"the weights of encoder {spec.name!r}{package} are not here: {how_to_get(spec)}")
    return files


def weights_sha256(spec: EncoderSpec) -> str:
    """The hash of the weights that `build` would use, for the feature-set key.

    Of one file, its sha256. Of several, the sha256 of the lines "<sha256>  <name>" in the spec's order, as sha256sum
    prints them. Of seeded weights, that of their seed (the architecture is in the key beside it).

    Raises:
        DataError: the weights are not here, or not the ones that were added.
    """
    if isinstance(spec.weights, SeededWeights):
        return hashlib.sha256(canonical_json({"kind": "seeded", "seed": spec.weights.seed}).encode()).hexdigest()
    files = weight_files(spec)
    digests = [file_sha256(path) for path in files]
    if isinstance(spec.weights, HubWeights | PageWeights):
        _check_unchanged(spec, digests)
    if len(files) == 1:
        return digests[0]
    listing = "".join(f"{digest}  {path.name}\n" for digest, path in zip(digests, files, strict=True))
    return hashlib.sha256(listing.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Of one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hub_origin(source: HubWeights, path: Path) -> str:
    """Where a file of the hub's cache came from: "hub org/model@commit", whatever branch or tag it was asked by."""
    commit = re.search(r"/snapshots/([0-9a-f]{40})/", path.as_posix())
    return f"hub {source.repo}@{commit[1] if commit else source.revision}"


def is_published(path: Path, known: tuple[str, ...]) -> bool:
    """Whether a file's hash is one of these, written "sha256:..." or "md5:..."."""
    found = set()
    for algorithm in {entry.partition(":")[0] for entry in known}:
        with path.open("rb") as file:
            found.add(f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}")
    return not found.isdisjoint(known)


def find_files(source: HubWeights | PageWeights, path: Path) -> tuple[Path, ...]:
    """The source's files in a folder, or `path` itself where one file is all there is and its companions lie beside it.

    Raises:
        DataError: there is no such file or folder, or one of the files is not in it.
    """
    if not path.exists():
        raise DataError(f"there is no file or folder {path}.")
    folder = path if path.is_dir() else path.parent
    first = path if path.is_file() else folder / source.files[0]
    if not first.is_file() and source.files[0] in TENSOR_FILES:
        first = next((folder / name for name in TENSOR_FILES if (folder / name).is_file()), first)
    files = (first, *(folder / name for name in source.files[1:]))
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise DataError(f"{folder} has no {' and no '.join(missing)}; needed are {', '.join(source.files)}.")
    return tuple(file.absolute() for file in files)


def _check_unchanged(spec: EncoderSpec, digests: list[str]) -> None:
    note = read_note(spec.name)
    if note is None:
        return
    for path, then, now in zip(note.paths, note.sha256, digests, strict=True):
        if then != now:
            raise DataError(
                f"{path} is not the file that was added for encoder {spec.name!r}: its sha256 was {then[:12]}... and "
                f"is {now[:12]}... now. Put the old file back, or run `radfs weights add {spec.name} {path}`."
            )


def _all_files(paths: Iterable[Path]) -> tuple[Path, ...] | None:
    files = tuple(paths)
    return files if all(path.is_file() for path in files) else None


def _in_package(source: PypiWeights) -> tuple[Path, ...] | None:
    package = importlib.util.find_spec(source.package)  # finds a top-level package without running it
    for root in (package.submodule_search_locations or ()) if package else ():
        files = _all_files(Path(root, source.folder, name) for name in source.files)
        if files is not None:
            return files
    return None


def _in_hub_cache(source: HubWeights) -> tuple[Path, ...] | None:
    """What other programs have fetched of the same revision."""
    from huggingface_hub import try_to_load_from_cache

    found = []
    for name in source.files:
        names = TENSOR_FILES if name in TENSOR_FILES else (name,)
        paths = [try_to_load_from_cache(source.repo, one, revision=source.revision) for one in names]
        path = next((path for path in paths if isinstance(path, str)), None)
        if path is None:
            return None
        found.append(Path(path))
    return tuple(found)
