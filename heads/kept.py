"""Kept heads: the trained parameters of a run in one safetensors file below `heads/` of a store. No torch.

Tensors are named `<choice>/<parameter>`, where the choice is the epoch that they are of (last, best, inner). The header
says what the run was (`config`, whose hash is the run id), so that a file explains itself.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import DamageError
from featurestore.fsio import write_atomic
from featurestore.keys import canonical_json, content_key
from featurestore.store import Store

from .plan import PlannedRun
from .spec import RunSpec

if TYPE_CHECKING:
    from .engine import HeadResult

State = dict[str, np.ndarray]


@dataclass(frozen=True)
class KeptHead:
    """A kept head.

    Attributes:
        spec: what the run was.
        features: modality -> name of the feature set that it reads.
        chosen: choice -> epoch.
        states: choice -> parameters, float32.
    """

    spec: RunSpec
    features: dict[str, str]
    chosen: dict[str, int]
    states: dict[str, State]

    @property
    def state(self) -> State:
        """The parameters after the run's chosen epoch: those that its results are of."""
        return self.states[self.spec.selected_by]


def save_kept(store: Store, run: PlannedRun, result: "HeadResult") -> None:
    """Keep the parameters that training gave back."""
    from safetensors.numpy import save

    tensors = {f"{choice}/{name}": value for choice, state in result.states.items() for name, value in state.items()}
    about = {
        "config": canonical_json(run.spec.what()),
        "features": canonical_json({m: s.name for m, s in run.features.items() if m in run.method.serves}),
        "chosen": canonical_json({choice: result.chosen[choice] for choice in result.states}),
    }
    write_atomic(_path(store, run.spec.run_id), save(tensors, metadata=about))


def load_kept(store: Store, run_id: str) -> KeptHead | None:
    """The kept head of a run; None if it was not kept.

    Raises:
        DamageError: its file cannot be read, or is of another run.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = _path(store, run_id)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        about = _metadata(data)
        spec = RunSpec.of(json.loads(about["config"]))
        states: dict[str, State] = {}
        for name, value in load(data).items():
            choice, _, parameter = name.partition("/")
            states.setdefault(choice, {})[parameter] = value
        if content_key(spec.what()) != run_id or spec.selected_by not in states:
            raise ValueError("it is of another run")
        return KeptHead(spec, json.loads(about["features"]), json.loads(about["chosen"]), states)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DamageError(
            f"the kept head {path} cannot be read ({error}). Delete it, and train its run again."
        ) from error


def kept_runs(store: Store) -> set[str]:
    """The ids of the runs whose heads are kept."""
    return {path.stem for path in store.heads.glob("*.safetensors")}


def _path(store: Store, run_id: str) -> Any:
    return store.heads / f"{run_id}.safetensors"


def _metadata(data: bytes) -> dict[str, str]:
    """`__metadata__` of the header, which stands before the tensors: 8 bytes of length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length])["__metadata__"]
