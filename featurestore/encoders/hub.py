"""Getting weights onto this machine: from the Hugging Face hub, or a file that the user fetched by hand.

Both end the same way: the file is read safely and compared with the published layout, hashed, and noted down. Files of
the hub stay in its cache, by commit; files fetched by hand stay where they are.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import DataError
from .checkpoint import read_checkpoint
from .foreign import HUB_FILES, foreign_spec
from .loading import check_file, looks_like
from .sources import HubWeights, PageWeights
from .spec import EncoderSpec
from .weights import (
    TENSOR_FILES,
    WeightsNote,
    file_sha256,
    find_files,
    how_to_get,
    hub_origin,
    is_published,
    write_note,
)


def add_weights(spec: EncoderSpec, path: Path, *, sha256: str | None = None) -> tuple[WeightsNote, list[str]]:
    """Take a file (or a folder with all files of the encoder) as the encoder's weights from now on.

    Args:
        spec: at its defaults.
        path: the file; it stays where it is.
        sha256: what the first file's must be, if the user knows; it stands above the published ones.

    Returns:
        the note that was kept, and what the user should know about the file.

    Raises:
        DataError: not a file of this encoder, damaged, or of another hash than is known.
    """
    source = spec.weights
    if not isinstance(source, HubWeights | PageWeights):
        raise DataError(f"encoder {spec.name!r} takes no weights file: its weights come with a package.")
    return _note(spec, find_files(source, path), "added by hand", sha256)


def fetch_weights(
    spec: EncoderSpec, *, sha256: str | None = None, revision: str | None = None
) -> tuple[WeightsNote, list[str]]:
    """Fetch an encoder's weights from the hub, through huggingface_hub: its cache, its token, its offline mode.

    Args:
        spec: at its defaults.
        sha256: as `add_weights`.
        revision: a commit, tag or branch to take in place of the spec's; the commit that a note names gives the same
            files on another machine.

    Result and errors as `add_weights`; DataError also where there is nothing to fetch from, no network, or terms that
    were not accepted.
    """
    source = spec.weights
    if not isinstance(source, HubWeights):
        raise DataError(f"the weights of encoder {spec.name!r} are not on the hub: {how_to_get(spec)}")
    source = replace(source, revision=revision or source.revision)
    paths = tuple(_download(source, name, spec.name) for name in source.files)
    return _note(spec, paths, hub_origin(source, paths[0]), sha256)


def fetch_foreign(name: str, *, revision: str | None = None) -> tuple[EncoderSpec, str]:
    """Fetch a foreign model (timm:NAME, hf:ORG/MODEL[@REVISION], open_clip:NAME@TAG): its spec, and where it lies.

    Its layout is compared when it is built. Revision and errors as `fetch_weights`.
    """
    if name.startswith("hf:"):
        return _fetch_folder(name if revision is None else f"{name.partition('@')[0]}@{revision}")
    spec = foreign_spec(name)
    if not isinstance(spec.weights, HubWeights):
        raise DataError(f"the weights of {name} are not on the hub: name a file with --weights.")
    source = replace(spec.weights, revision=revision or spec.weights.revision)
    paths = tuple(_download(source, file, name) for file in source.files)
    digests = tuple(file_sha256(path) for path in paths)
    write_note(WeightsNote(spec.name, tuple(map(str, paths)), digests, hub_origin(source, paths[0])))
    return spec, str(paths[0])


def _fetch_folder(name: str) -> tuple[EncoderSpec, str]:
    from huggingface_hub import snapshot_download

    repo, _, revision = name.removeprefix("hf:").partition("@")
    try:
        folder = snapshot_download(repo, revision=revision or None, allow_patterns=list(HUB_FILES))
    except Exception as error:  # the hub's client raises many kinds; each says which
        raise DataError(f"fetching {repo} failed: {error}") from error
    return foreign_spec(name), folder


def _note(spec: EncoderSpec, paths: Sequence[Path], origin: str, sha256: str | None) -> tuple[WeightsNote, list[str]]:
    source = spec.weights
    assert isinstance(source, HubWeights | PageWeights)
    check_file(spec, paths[0])
    digests = tuple(file_sha256(path) for path in paths)
    known = source.known if sha256 is None else (f"sha256:{sha256.lower()}",)
    if known and not is_published(paths[0], known):
        raise DataError(
            f"{paths[0].name} has the layout of encoder {spec.name!r} but not its hash: its sha256 is {digests[0]}, "
            f"known is {' or '.join(known)}. If you know that it is the right file, say so: --sha256 {digests[0]}"
        )
    note = WeightsNote(spec.name, tuple(map(str, paths)), digests, origin)
    write_note(note)
    return note, _remarks(spec, paths[0], known=bool(known))


def _remarks(spec: EncoderSpec, path: Path, *, known: bool) -> list[str]:
    remarks = [] if known else ["no hash of this file is published: compare the sha256 with that of a colleague's."]
    others = [name for name, share in looks_like(read_checkpoint(path), besides=spec.name) if share == 1]
    if others:
        remarks.append(f"encoder {' and '.join(others)} has the same layout, so layout cannot tell whose file this is.")
    return remarks


def _download(source: HubWeights, name: str, encoder: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    choices = sorted(TENSOR_FILES, key=lambda other: other != name) if name in TENSOR_FILES else [name]
    for choice in choices:
        try:
            return Path(hf_hub_download(source.repo, choice, revision=source.revision))
        except (GatedRepoError, RepositoryNotFoundError) as error:
            raise DataError(
                f"the hub does not give {source.repo} to you: accept its terms at {source.page}, then run `hf auth "
                "login` with a token that may read it."
            ) from error
        except LocalEntryNotFoundError as error:
            raise DataError(
                f"{choice} of {source.repo} is not in the cache and the hub cannot be reached (or HF_HUB_OFFLINE is "
                f"set). On a machine that can, run `radfs weights fetch {encoder}`, copy the files, and run `radfs "
                f"weights add {encoder} FOLDER` here."
            ) from error
        except EntryNotFoundError:
            continue
        except (HfHubHTTPError, OSError) as error:
            raise DataError(f"fetching {choice} of {source.repo} failed: {error}") from error
    raise DataError(f"{source.repo} has no {' and no '.join(choices)} at revision {source.revision}.")
