"""Cohorts: labelled samples, leak-free splits, and the builders that make them. Knows labels, not models."""

from .audit import AuditReport, audit_cohort
from .build import BuildReport
from .cohort import Cohort, list_cohorts, load_cohort, load_excluded, load_flow
from .describe import cohort_items, describe_cohort
from .phantom import build_phantom
from .scheme import SplitScheme
from .split_files import export_splits, import_splits, save_split
from .splits import Split, make_split
from .table import build_table

COHORT_BUILDERS = {
    "table": "cohorts.table:build_table",
    "phantom": "cohorts.phantom:build_phantom",
    "mimic-5x1200": "cohorts.tasks.mimic_5x1200:build_mimic_5x1200",
    "mimic-age": "cohorts.tasks.mimic_age:build_mimic_age",
    "mimic-discharge-3d": "cohorts.tasks.mimic_discharge_3d:build_mimic_discharge_3d",
    "inspect-readmission-12m": "cohorts.tasks.inspect_readmission_12m:build_inspect_readmission_12m",
    "inspect-ph-12m": "cohorts.tasks.inspect_ph_12m:build_inspect_ph_12m",
    "inspect-pe": "cohorts.tasks.inspect_pe:build_inspect_pe",
    "openi": "cohorts.public.openi:build_openi",
    "covid-chestxray": "cohorts.public.covid_chestxray:build_covid_chestxray",
    "hannover-covid19": "cohorts.public.hannover_covid19:build_hannover_covid19",
    "nih-cxr14": "cohorts.public.nih_cxr14:build_nih_cxr14",
    "chexpert": "cohorts.public.chexpert:build_chexpert",
    "padchest": "cohorts.public.padchest:build_padchest",
}
"""Builders by the name that `radfs cohort build` takes. A new one is one file and one line here; beside the builder
its module has `example(store, name, folder)`, which the contract suite runs."""

__all__ = [
    "COHORT_BUILDERS",
    "AuditReport",
    "BuildReport",
    "Cohort",
    "Split",
    "SplitScheme",
    "audit_cohort",
    "build_phantom",
    "build_table",
    "cohort_items",
    "describe_cohort",
    "export_splits",
    "import_splits",
    "list_cohorts",
    "load_cohort",
    "load_excluded",
    "load_flow",
    "make_split",
    "save_split",
]
