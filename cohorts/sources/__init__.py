"""Published data sets as they lie on disk: which files, which columns, what a cell may hold. Know no task, no store."""
