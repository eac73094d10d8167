"""Runs: predictions, scores, traces and exact records of runs as the files of an OpenML run, and back."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from metamed.errors import NotApplicable, ReadError
from metamed.exchange.entities import document, settings_of
from metamed.exchange.measuring import Scores
from metamed.exchange.tables import TAG, Table
from metamed.measures import MEASURES, get_measure
from metamed.records import Run, Setup, Source
from metamed.store.limits import setup_string

KEY_TAG = "metamed.k."  # a run's tag, with its id
RECORD = "metamed.json"  # a run's extra file: what OpenML has no place for
TRACE_SETTINGS = 1000  # characters of an iteration's settings; servers take 1024
_ENVIRONMENT = ("device", "hardware", "cores", "threads", "system", "python", "numpy", "torch", "torchvision",
                "scikit-learn", "metamed", "precision", "epochs", "peak_memory_mb")  # fmt: skip


def run_document(run: Run, setup: Setup, measures: Scores, task: int, flow: int) -> str:
    """measures: by OpenML's names, none that the server does not know: it would refuse the whole run."""
    settings = [{"name": k, "value": v, "component": flow} for k, v in settings_of(setup).items()]
    scores = [{"@repeat": 0, "@fold": fold, "name": name, "value": repr(value)}
              for name, values in measures.items() for fold, value in enumerate(values)]
    return document("run", {
        "task_id": task, "flow_id": flow, "setup_string": setup_string(setup), "parameter_setting": settings,
        "tag": [TAG, KEY_TAG + run.id], "output_data": {"evaluation": scores} if scores else None})  # fmt: skip


def server_measures(run: Run, n_classes: int | None, known: Iterable[str] = ()) -> Scores:
    """A run's scores under the names of OpenML where both mean the same. known: the names that count, all if empty.

    Servers weigh the AUC of each of several classes by its size, metamed does not: it is the same with two classes.
    """
    known = set(known) or {m.openml for m in MEASURES.values() if m.openml}
    return {m.openml: run.evaluations[m.name] for m in MEASURES.values()
            if m.openml in known and m.name in run.evaluations and (m.name != "auc" or n_classes == 2)}


def predictions_arff(run: Run, table: Table, path: Path) -> str:
    """The predictions of a run on the rows of its table. path: the run's `predictions.npz`."""
    import arff

    classes = list(table.classes)
    attributes = [*((n, "INTEGER") for n in ("repeat", "fold", "sample", "row_id")), ("prediction", classes),
                  ("correct", classes), *((f"confidence.{c}", "REAL") for c in classes)]  # fmt: skip
    rows = [line for fold, (samples, probabilities) in enumerate(stored_predictions(path.read_bytes()))
            for line in _fold_lines(table, fold, samples, probabilities)]
    if sorted((r[1], r[3]) for r in rows) != [(k, r) for k, fold in enumerate(table.test_rows) for r in fold]:
        raise NotApplicable("its predictions are not those of the samples that its task tests on")
    return arff.dumps({"description": f"run {run.id}", "relation": "predictions", "attributes": attributes,
                       "data": rows})  # fmt: skip


def _fold_lines(table: Table, fold: int, samples: np.ndarray, predictions: np.ndarray) -> Iterable[list]:
    names, target = table.classes, table.labels.target[table.rows]
    for sample, prediction in zip(samples.tolist(), predictions, strict=True):
        rows = table.rows_of.get(sample, [-1])
        places = None if table.places is None else table.places[rows]
        for row, p in zip(rows, chances(prediction, places, len(names)), strict=True):
            yield [0, fold, 0, row, names[int(p.argmax())], names[target[row]], *p.tolist()]


def chances(prediction: np.ndarray, places: np.ndarray | None, n_classes: int) -> np.ndarray:
    """Probabilities (m, K) of the m rows of one sample, of its prediction: of probabilities (K,) the one row, of a mask
    the pixels at `places`, int (m, 2), each wholly of its class. Raises NotApplicable where they do not fit."""
    if prediction.ndim == 1:
        if len(prediction) != n_classes:
            raise NotApplicable(f"{len(prediction)} probabilities a sample for {n_classes} classes")
        return prediction[None].astype(float)
    size = np.array(prediction.shape)
    if places is None or places.shape[1] != len(size) or (places >= size).any():
        raise NotApplicable(f"masks of {'x'.join(map(str, size))} pixels do not lie on those of its dataset")
    found = prediction[tuple(places.T)]
    if found.max(initial=0) >= n_classes:
        raise NotApplicable(f"class {found.max()} in predicted masks of {n_classes} classes")
    return np.eye(n_classes)[found]


def overlap(table: Table, path: Path) -> tuple[float, ...]:
    """Of each fold the intersection over union on the rows of predicted masks, the mean of the foreground classes that
    occur there; nothing where in some fold none occurs. path: the run's `predictions.npz`."""
    folds = []
    for samples, masks in stored_predictions(path.read_bytes()):
        rows = [table.rows_of[sample] for sample in samples.tolist()]
        said = [chances(mask, table.places[these], len(table.classes)).argmax(axis=1)
                for mask, these in zip(masks, rows, strict=True)]  # fmt: skip
        truth = table.labels.target[table.rows[np.concatenate(rows)]]
        folds.append(get_measure("iou")(truth[None, None], np.concatenate(said)[None, None]))
    return tuple(folds) if np.isfinite(folds).all() else ()


def stored_predictions(content: bytes) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each fold the tested samples and their predictions, probabilities (n, K) or masks, of `predictions.npz`."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        samples, values = file["test_index"], file["test"]
        fold = file.get("test_fold", np.zeros(len(samples), int))
        return [(samples[fold == k], values[fold == k]) for k in range(int(fold.max(initial=0)) + 1)]


def trace_arff(tried: Sequence[tuple[Setup, float, bool]]) -> str | None:
    """A search as OpenML's trace: an iteration for each setup tried, with the settings in which they differ.

    None where a server would refuse it: without a difference, or with more than 1024 characters of settings.
    """
    import arff

    told = [{"method": json.dumps(s.method), "recipe": json.dumps(s.recipe)} | settings_of(s) for s, _, _ in tried]
    names = [n for n in dict.fromkeys(n for t in told for n in t) if len({t.get(n) for t in told}) > 1]
    longest = max((len(json.dumps({f"parameter_{n}": t.get(n) for n in names})) for t in told), default=0)
    if not names or longest > TRACE_SETTINGS:
        return None
    attributes = [*((n, "INTEGER") for n in ("repeat", "fold", "iteration")), ("evaluation", "REAL"),
                  ("selected", ["true", "false"]), *((f"parameter_{n}", "STRING") for n in names)]  # fmt: skip
    rows = [[0, 0, k, score, "true" if chosen else "false", *(told[k].get(n) for n in names)]
            for k, (_, score, chosen) in enumerate(tried)]  # fmt: skip
    return arff.dumps({"description": "", "relation": "trace", "attributes": attributes, "data": rows})


# ---- what OpenML has no place for


def record_json(run: Run, setup: Setup, sources: Iterable[Source]) -> str:
    """A run with all its measures in full precision, its setup and its sources."""
    said = {"run": asdict(run) | {"environment": environment_of(run)}, "setup": asdict(setup),
            "sources": [asdict(s) | {"origin": _origin(s)} for s in sources]}  # fmt: skip
    return json.dumps(said, indent=1)


def environment_of(run: Run) -> dict[str, str]:
    """What is told of the machine that a run was made on."""
    return {k: v for k, v in run.environment.items() if k in _ENVIRONMENT}


def _origin(source: Source) -> str:
    return source.origin if re.match(r"(shipped|torchvision|path)$|train:[0-9a-f]{40}$", source.origin) else "path"


def read_record(text: str) -> tuple[Run, Setup, list[Source]]:
    """What `record_json` wrote, every value of its type. Raises ReadError for anything else."""
    try:
        said = json.loads(text)
        return _run(**said["run"]), _setup(**said["setup"]), [_source(**source) for source in said["sources"]]
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ReadError(f"{RECORD}: not a run of metamed ({type(error).__name__}: {error})") from None


def _run(task, setup, seed, versions, evaluations, seconds, environment, weights, error) -> Run:
    scores = {str(name): tuple(map(float, values)) for name, values in evaluations.items()}
    words = {str(k): str(v) for k, v in environment.items()}
    if not math.isfinite(seconds):
        raise ValueError(f"{seconds} seconds")
    return Run(str(task), str(setup), _whole(seed), tuple(map(_whole, versions)), scores, float(seconds), words,
               tuple(map(str, weights)), None if error is None else str(error))  # fmt: skip


def _setup(method, hyperparameters, recipe, sources) -> Setup:
    settings = {str(k): v for k, v in hyperparameters.items()}
    return Setup(str(method), settings, None if recipe is None else str(recipe), tuple(map(str, sources)))


def _source(corpus, **words) -> Source:
    return Source(corpus=tuple(map(str, corpus)), **{k: str(v) for k, v in words.items()})


def _whole(value) -> int:
    """A whole number that a database holds."""
    if not isinstance(value, int) or abs(value) >= 2**63:
        raise ValueError(f"{value!r} is no whole number")
    return value
