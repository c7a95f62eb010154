"""The tasks of the paper, from the raw downloads: one file a task (INSPECT's three differ in a column alone)."""
