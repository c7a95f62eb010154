"""The task `inspect-ph-12m` (prognostic; 12-Month PH in the paper): pulmonary hypertension within 12 months?"""

from pathlib import Path
from typing import Unpack

from featurestore.store import Store

from ..build import BuildReport
from .inspect_ct import Folder, InspectOptions, InspectTask, build_inspect, example_of

TASK = InspectTask("inspect-ph-12m", "12_month_PH", ("no PH", "PH"), known_codes=("416", "I27"))


def build_inspect_ph_12m(
    store: Store, name: str = TASK.builder, *, inspect: Folder, radiographs: Folder, **options: Unpack[InspectOptions]
) -> BuildReport:
    """Build the cohort; arguments and errors as of `build_inspect`."""
    return build_inspect(store, TASK, name, inspect=inspect, radiographs=radiographs, **options)


def example(store: Store, name: str, folder: Path) -> BuildReport:
    """The smallest real use, for the contract suite."""
    return example_of(store, TASK, name, folder)
