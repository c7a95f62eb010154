"""Data sets that anybody may have: one adapter each, from the published table to a cohort, with its licence."""
