"""The tasks of the paper, from the raw downloads: one file a task; `common`, `mimic` and `inspect_ct` are shared."""
