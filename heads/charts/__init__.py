"""Charts of results: pure functions from rows of the catalog's views to Altair charts, and one that writes files.

    from heads.charts import bars, curves, save_chart
    save_chart(curves(open_catalog(store).query("SELECT * FROM summary"), level=0.9), "curves.svg")

`curves` and `bars` draw rows of `summary`, `slopes` rows of `results`, `heatmap` rows of `paired`. No torch, no store;
Altair is loaded when something is drawn. Charts carry no configuration: `save_chart` and `themed` add the light or the
dark one.
"""

from .bars import bars
from .curves import curves
from .heatmap import heatmap
from .reliability import reliability
from .save import FORMATS, save_chart, themed
from .slopes import slopes
from .theme import config

__all__ = ["FORMATS", "bars", "config", "curves", "heatmap", "reliability", "save_chart", "slopes", "themed"]
