"""The report of a study: one HTML file that works offline, with every number's SQL beside it. No torch.

    from heads.report import write_report
    write_report(store, "report.html")

It holds means, intervals, values a seed, and counts; no ids of samples or patients, no report texts, no paths.
"""

from .write import write_report

__all__ = ["write_report"]
