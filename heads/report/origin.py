"""Where the numbers come from: software, machines, weights, data, splits, and the grid that the runs make up."""

from .parts import Asked, Section, table_of

_GRID = (
    *(
        "cohort",
        "method",
        "head",
        "backbone",
        "text_encoder",
        "views",
        "fraction",
        "seed",
        "split_seed",
        "epochs",
        "lr",
    ),
    *("batch_size", "dropout", "imitation", "temperature", "teacher_epoch", "precision", "selected_by"),
)


def origin(asked: Asked, where: str) -> Section:
    """Provenance of the runs of this report."""
    chosen = f"run IN (SELECT run FROM results WHERE {where})"
    software = asked(
        "software and machines",
        "SELECT radfs, git_commit, python, torch, numpy, sklearn, device, hardware, threads, precision, numerics, "
        f"count(*) AS runs, min(started_at)::DATE::VARCHAR AS first_day, max(finished_at)::DATE::VARCHAR AS last_day "
        f"FROM runs WHERE {chosen} GROUP BY ALL ORDER BY ALL",
    )
    weights = asked(
        "weights",
        f"""SELECT DISTINCT encoder, feature_set, modality, stored_as, weights_sha256, licence FROM feature_sets
WHERE feature_set IN (SELECT unnest([image_features, text_features]) FROM runs WHERE {chosen}) ORDER BY ALL""",
    )
    data = asked(
        "data",
        "SELECT cohort, cohort_key, common_rows, count(DISTINCT split) AS splits, count(*) AS runs FROM results "
        f"WHERE {where} GROUP BY ALL ORDER BY ALL",
    )
    splits = asked(
        "splits",
        "SELECT cohort, split_seed, split, any_value(n_test) AS n_test, count(*) AS runs FROM results "
        f"WHERE {where} GROUP BY ALL ORDER BY ALL",
    )
    values = " UNION ALL BY NAME ".join(
        f"SELECT {i} AS place, '{name}' AS key, string_agg(DISTINCT {name}::VARCHAR, ', ' ORDER BY {name}::VARCHAR) "
        f"AS values FROM results WHERE {where}"
        for i, name in enumerate(_GRID)
    )
    grid = asked("grid", f"SELECT key, values FROM ({values}) WHERE values IS NOT NULL ORDER BY place")
    return Section(
        "provenance",
        "Provenance",
        words=(
            "Every run's id is the hash of all that changes its numbers. The commands at the end print a run's whole "
            "origin, and train it again and compare.",
        ),
        parts=(
            table_of(grid, "The grid: values that the runs of this report take"),
            table_of(software, "Software and machines"),
            table_of(weights, "Encoders and their weights"),
            table_of(data, "Data: hashes of the cohort and of the samples used"),
            table_of(splits, "Splits"),
        ),
        sql=asked.sql,
        commands=("radfs show RUN", "radfs rerun RUN"),
    )
