"""Small planted data for tests of the engine: tokens that say the label, in every shape that the engine takes."""

import numpy as np

from heads.engine import HeadConfig, HeadData, HeadJob, Lesson, TokenTable
from heads.engine.objectives import OBJECTIVES

N_TRAIN, N_TEST, N_INNER = 33, 24, 15  # batches of 8: four and one of 1
N = N_TRAIN + N_TEST + N_INNER
DIMS = {"image": 16, "text": 12}

CONFIG = HeadConfig(classes=2, epochs=4, init_seed=1, batch_seed=2, dropout_seed=3, view_seed=4, batch_size=8, lr=1e-3)


def planted(n_items, tokens, dim, classes, *, ragged=False, strength=1.0, seed=0):
    """(table, labels): one token an item leans, by `strength`, towards its class; every class occurs in each tenth."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n_items) % classes)
    lengths = rng.integers(1, tokens + 1, n_items) if ragged else np.full(n_items, tokens)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    flat = rng.normal(0.5, 2.0, (offsets[-1], dim))
    flat[offsets[:-1]] += strength * rng.normal(0, 2.0, (classes, dim))[labels]
    flat = flat.astype(np.float16)
    if ragged:
        return TokenTable.ragged(flat, offsets), labels
    return TokenTable.dense(flat.reshape(n_items, tokens, dim)), labels


def make_data(target="classes", classes=2, *, views=3, seed=0):
    """Images in several views and ragged texts of N samples, with labels of `classes` classes or findings."""
    rng = np.random.default_rng(seed)
    if target == "classes":
        labels = rng.permutation(np.arange(N) % classes)
    else:
        labels = rng.integers(-1, 2, (N, classes))
        labels[:2] = [[0], [1]]
    image = rng.normal(0.5, 2.0, (N, 9, DIMS["image"])).astype(np.float32)
    augmented = [image + 0.3 * rng.normal(size=image.shape).astype(np.float32) for _ in range(views - 1)]
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 12, N))])
    text = rng.normal(size=(offsets[-1], DIMS["text"])).astype(np.float32)
    tables = {"image": TokenTable.dense(image, *augmented), "text": TokenTable.ragged(text, offsets)}
    return HeadData(tables, labels)


def make_job(config, *, seed=5, inner=True, keep=("last",), views=3):
    """A job on `make_data`, with a random lesson where its objective needs one."""
    rng = np.random.default_rng(seed)
    order = np.random.default_rng(9).permutation(N)
    train, test, rest = np.split(order, [N_TRAIN, N_TRAIN + N_TEST])
    lesson = None
    if OBJECTIVES[config.objective].needs_lesson:
        shapes = ((views, N_TRAIN, config.classes), (views, N_TRAIN, sum(DIMS.values())))
        lesson = Lesson(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))
    return HeadJob(config, train, test, rest if inner else None, lesson, keep=keep)


def readings(objective):
    """The modalities that an objective can be tried with."""
    if OBJECTIVES[objective].privileged:
        return [("image", "text")]
    return [("image",), ("text",), ("image", "text")]
