"""Which measure without instance labels ranks models as the true instances do: python -m benchmarks.trust SHARED.

Every variant learns on bags whose instances are known (`known_instances`) and never sees their labels; then each
measure of `metamed.trust` is compared with the true AUC of the instances' scores. Rows are appended to
results/trust.csv as they are made: an interrupted run goes on. `python -m benchmarks.trust_results` reads them.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.known_instances import NAMES, SIDE, bags_of
from metamed.dataset import Dataset
from metamed.measures import binary_auc
from metamed.records import Setup
from metamed.sources import embedder
from metamed.store import Store
from metamed.trust import TRUST, Judged, judge, measure
from metamed.trust.learning import PANEL, learner

TABLE = Path(__file__).parent / "results" / "trust.csv"
RESAMPLINGS, SEEDS = 4, 2
SETUPS = (
    Setup("single_instance"), Setup("single_instance", {"c": 1.0}), Setup("single_instance", {"pooling": "max"}),
    Setup("mi_svm"), Setup("mi_svm", {"kernel": "rbf"}), Setup("mi_svm_bags"), Setup("miles"), Setup("mi_graph"),
    Setup("citation_knn"), Setup("em_dd"), Setup("bag_of_words"), Setup("bag_statistics"),
    Setup("instance_net", {"pooling": "mean"}), Setup("instance_net", {"pooling": "max"}),
    Setup("instance_net", {"pooling": "lse"}), Setup("embedding_net", {"pooling": "max"}), Setup("attention"),
    Setup("dsmil"), Setup("clam"), Setup("deep_sets"), Setup("transmil"),
)  # fmt: skip
TRUTHS = ("instance_auc", "instance_auc_inside")
FACTS = ("dataset", "method", "settings", "seconds", *TRUTHS)


def rows_of(data: Dataset, setups: tuple[Setup, ...] = SETUPS, panel: tuple[str, ...] = PANEL) -> list[dict]:
    """One row a setup: the true AUC of instances, and every measure that is without their labels."""
    store, train, test = Store.memory(), np.flatnonzero(data.split == 0), np.flatnonzero(data.split == 2)
    asked = {name: _once(_fit(Setup(name), data, store)) for name in panel}
    places = None if data.coordinates is None else [data.coordinates[data.bags == b] for b in range(data.n_samples)]
    truth = np.concatenate([data.instance_target[data.bags == b] for b in test]) > 0
    rows = []
    for setup in setups:
        start = time.process_time()
        fit, bags = _fit(setup, data, store), learner(setup, data, store, device="cpu")[0]
        others = [other for name, other in asked.items() if name != setup.method]
        judged = judge(fit, bags, data.target, train, test, others=others, coordinates=places,
                       resamplings=RESAMPLINGS, seeds=SEEDS)  # fmt: skip
        row = dict(zip(FACTS[:3], (data.name, *_model(setup)), strict=True)) | _truths(judged, truth)
        row |= {t.measure: t.value for t in measure(judged, bootstraps=0)}
        rows.append(row | {"seconds": time.process_time() - start})
    return rows


def _model(setup: Setup) -> tuple[str, str]:
    """Method and settings, as the table has them."""
    return setup.method, " ".join(f"{k}={v}" for k, v in sorted(setup.hyperparameters.items()))


def _truths(judged: Judged, truth: np.ndarray) -> dict[str, float]:
    """AUC over all instances of the test bags, and its mean inside the bags with a finding."""
    inside = [binary_auc(truth[m], judged.scores[m]) for m, finding in zip(judged.members, judged.finding, strict=True)
              if finding]  # fmt: skip
    return dict(zip(TRUTHS, (binary_auc(truth, judged.scores), float(np.nanmean(inside))), strict=True))


def _fit(setup: Setup, data: Dataset, store: Store) -> Callable:
    bags, learn = learner(setup, data, store, device="cpu")
    return lambda train, seed: learn([bags[b] for b in train], data.target[train], seed)


def _once(fit: Callable) -> Callable:
    """Learned the first time that it is asked for: the panel is the same for all setups of a dataset."""
    kept: dict[tuple, object] = {}

    def cached(train: np.ndarray, seed: int):
        key = (*train.tolist(), seed)
        if key not in kept:
            kept[key] = fit(train, seed)
        return kept[key]

    return cached


def append(table: Path, rows: list[dict], columns: tuple[str, ...] = (*FACTS, *TRUST)) -> None:
    """Add rows to a table, numbers with four digits; a new one gets its header."""
    new = not table.exists()
    with table.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows([{k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows])


def _missing(name: str, table: Path) -> tuple[Setup, ...]:
    """Setups of which the table has no row for this dataset."""
    rows = csv.DictReader(table.open(encoding="utf-8")) if table.exists() else ()
    done = {(row["method"], row["settings"]) for row in rows if row["dataset"] == name}
    return tuple(setup for setup in SETUPS if _model(setup) not in done)


def main(shared: Path, names: tuple[str, ...] = NAMES, table: Path = TABLE) -> None:
    embed = embedder(image_size=SIDE, device="cpu")
    for name in names:
        setups = _missing(name, table)
        if not setups:
            continue
        rows = rows_of(bags_of(name, shared, embed), setups)
        append(table, rows)
        print(f"{name}: {len(rows)} models, {sum(row['seconds'] for row in rows):.0f} s", flush=True)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    main(Path(sys.argv[1]), tuple(sys.argv[2:]) or NAMES)
