"""Which meta-features say the same: rank correlations over real datasets, clusters, effective numbers, one picture."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.cluster.hierarchy import average, fcluster, leaves_list
from scipy.spatial.distance import squareform
from scipy.stats import rankdata

from metamed.metafeatures import METAFEATURES, PAIR_METAFEATURES, extract, extract_pair
from metamed.readers import read
from metamed.sources import embedder

GROUPS = ("general", "intensity", "texture", "structure", "landmarking", "segmentation", "bags", "deep", "crowd")
FEWEST, ACROSS = 8, 20  # datasets on which two columns have to be known both: of one group, of two groups
PAIRS = "pairs"  # what the pair meta-features are called here
SAME = 0.9  # mean absolute rank correlation from which on columns count as one


@dataclass(frozen=True)
class Described:
    """A dataset by its vector of meta-features, and what its card says in words."""

    name: str
    digest: str
    vector: dict[str, float | str]


def describe(folder: Path) -> list[Described]:
    """Every HDF5 file of the folders cls, seg, mil and crowd, by default settings; images also by a frozen network."""
    paths = sorted(path for kind in ("cls", "seg", "mil", "crowd") for path in (folder / kind).glob("*.h5"))
    embed = embedder()
    return [_described(path, embed) for path in paths]


def _described(path: Path, embed) -> Described:
    data = read(path)
    words = {"modality": data.card.modality, "organ": data.card.organ}
    return Described(path.stem, data.digest, words | extract(data, deep=True, embed=embed))


@dataclass(frozen=True)
class Map:
    """Columns, the group of each, their correlations (p, p), and on how many datasets each group is known."""

    names: list[str]
    groups: list[str]
    correlation: np.ndarray
    datasets: dict[str, int]

    def block(self, group: str) -> Map:
        """The part of one group; "all" is the whole."""
        own = [k for k, g in enumerate(self.groups) if group in (g, "all")]
        return Map([self.names[k] for k in own], [self.groups[k] for k in own], self.correlation[np.ix_(own, own)],
                   self.datasets)  # fmt: skip


def columns_of(group: str) -> list[str]:
    """The columns of a group."""
    return [c for f in METAFEATURES.values() if f.group == group for c in f.columns]


def every_column() -> list[str]:
    """The columns of all groups."""
    return [c for g in GROUPS for c in columns_of(g)]


def matrix(described: list[Described], columns: list[str]) -> tuple[list[str], np.ndarray]:
    """(columns that vary over enough datasets, their values (datasets, columns))."""
    values = np.array([[d.vector[c] for c in columns] for d in described])
    kept = [k for k, v in enumerate(values.T) if np.isfinite(v).sum() >= FEWEST and np.nanmax(v) > np.nanmin(v)]
    return [columns[k] for k in kept], values[:, kept]


def spearman(values: np.ndarray, groups: list[str] | None = None) -> np.ndarray:
    """Rank correlation of each two columns over the rows that have both, (p, p); NaN where too few rows have.

    FEWEST rows are enough, ACROSS for columns of unlike `groups`: of so many pairs some agree on ten rows by chance.
    """
    known = np.isfinite(values)
    out = np.eye(values.shape[1])
    for a in range(values.shape[1]):
        for b in range(a):
            both = known[:, a] & known[:, b]
            enough = ACROSS if groups and groups[a] != groups[b] else FEWEST
            out[a, b] = out[b, a] = _correlation(values[both][:, [a, b]]) if both.sum() >= enough else np.nan
    return out


def _correlation(pairs: np.ndarray) -> float:
    x, y = (rankdata(column) for column in pairs.T)
    spread = x.std() * y.std()
    return ((x - x.mean()) * (y - y.mean())).mean() / spread if spread > 0 else np.nan


def knows(vector: dict, group: str) -> bool:
    """Whether any column of a group is known of a dataset."""
    return any(np.isfinite(vector.get(c, np.nan)) for c in columns_of(group))


def correlations(described: list[Described]) -> Map:
    """The rank correlations of all columns that vary over enough datasets."""
    names, values = matrix(described, every_column())
    owner = {c: g for g in GROUPS for c in columns_of(g)}
    groups = [owner[name] for name in names]
    known = {g: sum(knows(d.vector, g) for d in described) for g in GROUPS}
    return Map(names, groups, spearman(values, groups), known | {"all": len(described)})


def pair_correlations(described: list[Described]) -> Map:
    """The same of the pair meta-features, over every source and target; distances in deviations over the datasets."""
    names, table = matrix(described, every_column())
    scale = dict(zip(names, np.nanstd(table, axis=0), strict=True))
    vectors, names = [d.vector for d in described], list(PAIR_METAFEATURES)
    pairs = [list(extract_pair(a, b, scale=scale).values()) for a in vectors for b in vectors if a is not b]
    return Map(names, [PAIRS] * len(names), spearman(np.array(pairs)), {PAIRS: len(described)})


def effective_number(correlation: np.ndarray) -> float:
    """Exponential of the entropy of the correlation matrix' eigenvalues: as many unrelated columns would spread so."""
    if not len(correlation):
        return 0.0
    share = np.maximum(np.linalg.eigvalsh(np.nan_to_num(correlation)), 0)
    share = share[share > 1e-12] / share.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def tree_of(correlation: np.ndarray) -> np.ndarray:
    """Average linkage on 1 - |correlation|."""
    return average(squareform(np.maximum(1 - np.abs(np.nan_to_num(correlation)), 0), checks=False))


def clusters(found: Map) -> list[list[str]]:
    """Columns that say the same, largest cluster first, columns in their order; lone ones too."""
    if len(found.names) < 2:
        return [[name] for name in found.names]
    owner = fcluster(tree_of(found.correlation), 1 - SAME, "distance")
    parts = [[n for n, o in zip(found.names, owner, strict=True) if o == k] for k in dict.fromkeys(owner)]
    return sorted(parts, key=lambda part: (-len(part), found.names.index(part[0])))


def summary(found: Map) -> list[tuple]:
    """(group, datasets, columns, effective number, clusters) of each part of a map."""
    rows = []
    for group, datasets in found.datasets.items():
        part = found.block(group)
        number, alike = effective_number(part.correlation), len(clusters(part))
        rows.append((group, datasets, len(part.names), f"{number:.1f}", alike))
    return rows


def write_csv(rows: list[tuple], path: Path) -> None:
    """Rows of `summary` as a file: what the documentation is made from."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("group", "datasets", "columns", "effective", "clusters"), *rows])


def table(rows: list[tuple]) -> list[str]:
    """Rows of `summary` as Markdown."""
    head = ["| group | datasets | columns | effective number | clusters |", "|---|---|---|---|---|"]
    return head + [f"| {' | '.join(map(str, row))} |" for row in rows]


def picture(found: Map, path: Path) -> None:
    """The map of correlations as SVG: groups in blocks, inside a block like beside like."""
    import matplotlib
    from matplotlib.figure import Figure

    order, edges, blocks = [], [0], list(dict.fromkeys(found.groups))
    for group in blocks:
        own = [k for k, g in enumerate(found.groups) if g == group]
        order += [own[k] for k in leaves_list(tree_of(found.correlation[np.ix_(own, own)]))]
        edges.append(len(order))
    with matplotlib.rc_context({"svg.hashsalt": "metamed", "font.size": 9}):
        drawn = Figure(figsize=(6.5, 6), layout="constrained")
        axes = drawn.subplots()
        colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad="#cccccc")
        shown = axes.imshow(found.correlation[np.ix_(order, order)], colours, vmin=-1, vmax=1, interpolation="none")
        for edge in edges[1:-1]:
            axes.axhline(edge - 0.5, color="black", linewidth=0.6)
            axes.axvline(edge - 0.5, color="black", linewidth=0.6)
        middle = [(a + b - 1) / 2 for a, b in zip(edges, edges[1:], strict=False)]
        axes.set_yticks(middle, blocks)
        axes.set_xticks(middle, blocks, rotation=40, ha="right")
        drawn.colorbar(shown, label="Spearman's rank correlation (grey: too few datasets have both)", shrink=0.8)
        drawn.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
