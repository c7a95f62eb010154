"""One head as a scikit-learn classifier, for everyday use on tokens in memory: no store, no grid.

from heads import HeadClassifier
cross_validate(HeadClassifier(epochs=50), tokens, labels, scoring="roc_auc")
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from featurestore.keys import stream_seed

from .engine import HeadConfig, HeadData, HeadJob, TokenTable, apply_head, train_head

Tokens = np.ndarray | Sequence[np.ndarray]


class HeadClassifier(ClassifierMixin, BaseEstimator):
    """A head on frozen tokens that is trained by supervision, and predicts classes.

    X is one array [N, n, d], or a list of N arrays [n_i, d], float16 or float32; an array [N, d] counts as one token a
    sample. y holds one class a sample, of any type that sorts.

    Attributes:
        classes_: the classes, sorted.
        n_features_in_: d.
        state_: the trained parameters by name, float32.
        loss_curve_: mean training loss of each epoch.
    """

    def __init__(
        self,
        *,
        head: str = "attention",
        epochs: int = 50,
        lr: float | None = None,
        batch_size: int = 64,
        dropout: float = 0.2,
        random_state: int = 0,
    ) -> None:
        """As a grid's keys of these names; `lr` None: the head's own; `random_state`: the seed of all that is drawn."""
        self.head = head
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.dropout = dropout
        self.random_state = random_state

    def fit(self, X: Tokens, y: Any) -> Self:
        """Train.

        Raises:
            ValueError: X and y do not fit together, or there is one class only.
            FloatingPointError: the loss is not finite; names the epoch.
        """
        from .kinds import get_head

        labels = np.asarray(y)
        table = _table(X)
        if labels.shape != (table.n_items,):
            raise ValueError(f"y holds {labels.shape} labels for {table.n_items} samples: one class a sample is needed")
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class only, {str(self.classes_[0])!r}: there is nothing to tell apart")
        self.n_features_in_ = table.dim
        # The engine reports on a test part after every epoch: here one sample a class, read a second time and not used.
        _, firsts = np.unique(codes, return_index=True)
        n, rows = table.n_items, np.concatenate([np.arange(table.n_items), firsts])
        data = HeadData({"image": table}, codes[rows].astype(np.int64))
        self._config = self._head_config(get_head(self.head).lr)
        job = HeadJob(self._config, np.arange(n), np.arange(n, len(rows)), rows={"image": rows})
        result = train_head(data, job)
        self.state_ = result.states["last"]
        self.loss_curve_ = [epoch.train_loss for epoch in result.epochs]
        return self

    def predict_proba(self, X: Tokens) -> np.ndarray:
        """Probabilities [N, classes], columns as `classes_`."""
        check_is_fitted(self)
        table = _table(X)
        if table.dim != self.n_features_in_:
            raise ValueError(f"X has tokens of {table.dim} dimensions; the head was trained on {self.n_features_in_}")
        data = HeadData({"image": table}, np.zeros(table.n_items, np.int64))
        return apply_head(self.state_, self._config, data, np.arange(table.n_items))

    def predict(self, X: Tokens) -> np.ndarray:
        """The most probable class of each sample."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _head_config(self, usual_lr: float) -> HeadConfig:
        from .kinds import get_head

        kind = get_head(self.head)
        if kind.is_baseline:
            raise ValueError(f"head {self.head!r} is scikit-learn's own: fit that on X.mean(axis=1)")
        streams = {name: stream_seed(self.random_state, name) for name in ("init", "batches", "dropout")}
        return HeadConfig(
            classes=len(self.classes_),
            epochs=self.epochs,
            init_seed=streams["init"],
            batch_seed=streams["batches"],
            dropout_seed=streams["dropout"],
            form=kind.form,
            lr=usual_lr if self.lr is None else self.lr,
            batch_size=self.batch_size,
            dropout=self.dropout,
        )


def _table(X: Tokens) -> TokenTable:
    if isinstance(X, np.ndarray):
        tokens = X[:, None] if X.ndim == 2 else X
        return TokenTable.dense(tokens if tokens.dtype == np.float16 else tokens.astype(np.float32, copy=False))
    arrays = [np.asarray(tokens) for tokens in X]
    offsets = np.concatenate([[0], np.cumsum([len(tokens) for tokens in arrays])]).astype(np.int64)
    flat = np.concatenate(arrays)
    return TokenTable.ragged(flat if flat.dtype == np.float16 else flat.astype(np.float32, copy=False), offsets)
