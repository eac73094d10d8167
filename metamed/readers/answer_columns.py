"""What the columns of a table of answers mean: triplets, ratings or rankings, long or wide, by people or by slots."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from metamed.assessments import Rankings, Ratings, Triplets
from metamed.errors import ReadError

# role -> names that a column of that role has, the preferred first; compared in lower case with _ for what is no letter
COLUMNS = {
    "anchor": ("anchor", "reference", "ref", "query", "probe"),
    "closer": ("closer", "chosen", "positive", "more_similar", "near", "nearer"),
    "farther": ("farther", "further", "other", "negative", "less_similar", "far"),
    "left": ("left", "image_left", "left_image", "option_a"),
    "right": ("right", "image_right", "right_image", "option_b"),
    "answer": ("answer", "choice", "response", "clicked", "pressed"),
    "question": ("question", "anchor", "query", "case", "case_id"),
    "item": ("item", "candidate", "option", "diagnosis", "condition", "condition_id", "image"),
    "rank": ("rank", "position", "place"),
    "image": ("image", "image_id", "image_name", "img", "item", "item_id", "case", "case_id", "sample", "file",
              "filename", "lesion", "lesion_id", "nodule", "isic_id"),
    "attribute": ("attribute", "feature", "characteristic", "property"),
    "score": ("score", "rating", "value", "grade"),
    "annotator": ("annotator", "annotators", "annotator_id", "worker", "workers", "worker_id", "rater", "rater_id",
                  "reader", "reader_id", "user", "user_id", "participant", "participant_id", "judge", "observer",
                  "reader_slot", "annotator_slot", "worker_slot", "slot"),
    "within": ("group", "team", "batch", "source"),
    "side": ("side", "sides"),
    "condition": ("condition", "conditions", "arm", "treatment"),
    "time": ("time", "times", "seconds", "response_time", "rt", "duration", "time_ms", "rt_ms", "response_time_ms"),
    "confidence": ("confidence", "confidences", "certainty"),
    "gold": ("gold", "correct", "truth"),
}  # fmt: skip
_SIDES = {"left": 0, "l": 0, "0": 0, "a": 0, "right": 1, "r": 1, "1": 1, "b": 1}
_MOST_GRADES = 20  # distinct numbers in a column of a wide table that is taken for an attribute's scores
_INDEX = re.compile(r"[ivx]+|\d{1,3}|[a-h]", re.I)  # what numbers a column instead of naming a person
_PLATFORMS = re.compile(r"(?<![a-z])(m.?turk|amt|crowd\w*|prolific|appen|toloka|figure.?eight)(?![a-z])", re.I)
_NOBODY = {"", "?", "na", "nan", "none", "unknown", "anonymous"}


@dataclass
class Table:
    """Columns of one length on their way to become answers; `notes` and `found` say what was taken for granted.

    names: of the images, in the order of their indices, where they are known; else whole numbers are indices if the
    number of images is known, and whatever the images are called is numbered as it appears if it is not.
    """

    where: str
    columns: Mapping[str, np.ndarray]
    names: Sequence[str] | None = None
    condition: str | None = None
    n_images: int | None = None
    notes: list[str] = field(default_factory=list)
    found: dict[str, int] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def __post_init__(self):
        self.columns = {re.sub(r"\W+", "_", k.strip().lower()).strip("_"): v for k, v in self.columns.items()}
        if self.condition is not None:
            self.condition = re.sub(r"\W+", "_", self.condition.strip().lower())

    def has(self, *roles: str) -> bool:
        return all(any(name in self.columns for name in COLUMNS[role]) for role in roles)

    def find(self, role: str) -> np.ndarray | None:
        """The column in that role, which is used up by it; None if there is none."""
        for name in COLUMNS[role]:
            if name in self.columns and name not in self.used:
                self.used.add(name)
                return self.columns[name]
        return None

    def count(self, what: str, n: int) -> None:
        if n:
            self.found[what] = self.found.get(what, 0) + int(n)

    def indices(self, *columns: np.ndarray) -> list[np.ndarray]:
        """Columns of images as indices, -1 where the name is not known; new names are numbered as they appear."""
        whole = all(c.dtype.kind in "iu" for c in columns)
        if self.names is None and self.n_images is not None and whole:
            return [c.astype(np.int64) for c in columns]
        text = [np.asarray(c).astype(str) for c in columns]
        if self.names is None:
            seen, first = np.unique(np.concatenate(columns if whole else text), return_index=True)
            self.names = tuple(seen.astype(str)[np.argsort(np.arange(len(seen)) if whole else first)].tolist())
        index = {name: i for i, name in enumerate(self.names)}
        if whole and not any(v in index for v in text[0][:100].tolist()):
            return [np.asarray(c, np.int64) for c in columns]
        for i, name in enumerate(self.names):  # a file's name without its folder and suffix is enough
            index.setdefault(name.replace("\\", "/").rpartition("/")[2].rpartition(".")[0] or name, i)
        return [np.array([index.get(v, -1) for v in t], np.int64) for t in text]


def answers(table: Table) -> Triplets | Ratings | Rankings:
    """The answers in a table, by the columns that it has. Raises ReadError where they fit no kind."""
    if table.has("anchor", "closer", "farther"):
        return _triplets(table)
    if table.has("anchor", "left", "right"):
        return _shown_triplets(table)
    if table.has("question", "item", "rank"):
        return _rankings(table)
    if table.has("image"):
        return _ratings(table)
    held = ", ".join(table.columns) or "(none)"
    raise ReadError(f"{table.where}: no answers in columns {held}. Expected anchor, closer, farther; or image, "
                    "annotator, attribute, score; or question, item, rank")  # fmt: skip


# -- triplets ----------------------------------------------------------------------------------------------------------


def _triplets(table: Table) -> Triplets:
    columns = table.indices(*(table.find(role) for role in ("anchor", "closer", "farther")))
    side = table.find("side")
    return Triplets(*columns, **_about(table, len(columns[0])), side=None if side is None else _sides(table, side),
                    gold=_right(table))  # fmt: skip


def _shown_triplets(table: Table) -> Triplets:
    """Rows that say what was shown left and right, and what was called closer; or a column of answers per annotator."""
    shown = [table.find(role) for role in ("anchor", "left", "right")]
    answer = table.find("answer")
    if answer is None:
        return _wide_triplets(table, shown)
    anchor, left, right = table.indices(*shown)
    text = np.char.lower(np.asarray(answer).astype(str))
    side = np.array([_SIDES.get(a, -1) for a in text], np.int64)
    for k, column in enumerate(shown[1:]):  # the answer may also be the name of the image
        side = np.where((side < 0) & (text == np.char.lower(np.asarray(column).astype(str))), k, side)
    return _answered(table, _chosen(anchor, left, right, side, **_about(table, len(anchor)), gold=_right(table)))


def _chosen(anchor: np.ndarray, left: np.ndarray, right: np.ndarray, side: np.ndarray, **more) -> Triplets:
    return Triplets(anchor, np.where(side == 0, left, right), np.where(side == 0, right, left), side=side, **more)


def _wide_triplets(table: Table, shown: list[np.ndarray]) -> Triplets:
    people = [c for c in table.columns if c not in table.used and c not in COLUMNS["condition"]]
    sides = {c: np.array([_SIDES.get(v, -1) for v in np.char.lower(table.columns[c].astype(str))]) for c in people}
    people = [c for c in people if (sides[c] >= 0).any()]
    if not people:
        raise ReadError(f"{table.where}: anchor, left and right, but no column of answers (left | right) beside them")
    table.used.update(people)
    table.notes.append(f"one column an annotator: {', '.join(people[:6])}{'…' if people[6:] else ''}")
    n, anchor, left, right = len(people), *table.indices(*shown)
    side = np.stack([sides[c] for c in people], axis=1).ravel()
    anchor, left, right = (np.repeat(c, n) for c in (anchor, left, right))
    condition = table.find("condition")
    condition = None if condition is None else np.repeat(condition, n)
    t = _chosen(anchor, left, right, side, annotator=np.tile(people, len(anchor) // n), condition=condition)
    return _answered(table, t)


def _answered(table: Table, triplets: Triplets) -> Triplets:
    table.count("no answer", (triplets.side < 0).sum())
    return triplets.take(triplets.side >= 0)


def _sides(table: Table, side: np.ndarray) -> np.ndarray:
    codes = np.array([_SIDES.get(v, -1) for v in np.char.lower(np.asarray(side).astype(str))], np.int64)
    table.count("side unknown", (codes < 0).sum())
    return codes


def _right(table: Table) -> np.ndarray | None:
    gold = table.find("gold")
    if gold is None:
        return None
    words = {"1": 1, "1.0": 1, "true": 1, "yes": 1, "0": 0, "0.0": 0, "false": 0, "no": 0}
    return np.array([words.get(v, -1) for v in np.char.lower(np.asarray(gold).astype(str))], np.int8)


# -- ratings and rankings ----------------------------------------------------------------------------------------------


def _ratings(table: Table) -> Ratings:
    (image,) = table.indices(table.find("image"))
    attribute, score = table.find("attribute"), table.find("score")
    if score is None:
        return _wide_ratings(table, image) if table.has("annotator") else _one_column_each(table, image, attribute)
    attribute = np.full(len(image), "rating") if attribute is None else np.asarray(attribute).astype(str)
    about, gold = _about(table, len(image)), table.find("gold")
    return Ratings(
        image, attribute=attribute, score=numbers(score), gold=None if gold is None else numbers(gold), **about
    )


def _wide_ratings(table: Table, image: np.ndarray) -> Ratings:
    """A row an image and annotator, a column an attribute."""
    about, found = _about(table, len(image)), _graded(table)
    about = {name: None if v is None else np.repeat(v, len(found)) for name, v in about.items()}
    table.notes.append(f"one column an attribute: {', '.join(found)}")
    return Ratings(
        np.repeat(image, len(found)), attribute=np.tile(found, len(image)), score=_flat(table, found), **about
    )


def _one_column_each(table: Table, image: np.ndarray, attribute: np.ndarray | None) -> Ratings:
    """A row an image, a column an annotator: rater1, rater2 … of one attribute, or asymmetry_1, asymmetry_2, ….

    Numbered columns of an attribute are slots; columns of a row that names the attribute are people.
    """
    found = _graded(table)
    named = {word for name in COLUMNS["annotator"] for word in (name, name + "s")}
    parts = [re.fullmatch(r"(.+?)_?(\d+|i{1,3}|iv|v)", column) for column in found]
    people = attribute is not None or not all(m and m[1] not in named for m in parts)
    what, who = (["rating"] * len(found), found) if people else zip(*(m.groups() for m in parts), strict=True)
    table.notes.append(f"one column an annotator: {_some(found)}")
    if not people:
        table.notes.append("numbered columns are slots, filled by whoever came: they get no quality of their own")
    attribute = np.tile(what, len(image)) if attribute is None else np.repeat(attribute, len(found))
    score = _flat(table, found)
    slot = None if people else np.ones(len(score), bool)
    return Ratings(np.repeat(image, len(found)), np.tile(who, len(image)), attribute, score, slot=slot)


def _flat(table: Table, columns: list[str]) -> np.ndarray:
    """The columns as one, row after row. Empty cells count as answers without a score."""
    return np.stack([numbers(table.columns[c]) for c in columns], axis=1).ravel()


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + ("…" if len(names) > 5 else "")


def _graded(table: Table) -> list[str]:
    """Unused columns of few distinct numbers, which are scores. Raises ReadError where there is none."""
    found = []
    for name, column in table.columns.items():
        values = numbers(column) if name not in table.used else np.empty(0)
        known = values[np.isfinite(values)]
        if len(known) and len(known) >= len(values) / 2 and 2 <= len(np.unique(known)) <= _MOST_GRADES:
            found.append(name)
    if not found:
        held = ", ".join(table.columns)
        raise ReadError(f"{table.where}: no column of scores. Found: {held}. Call it score, or keep "
                        f"each attribute in a column with at most {_MOST_GRADES} different numbers")  # fmt: skip
    table.used.update(found)
    return found


def _rankings(table: Table) -> Rankings:
    question, item, rank = (table.find(role) for role in ("question", "item", "rank"))
    about = _about(table, len(rank))
    rank = numbers(rank)
    table.count("no rank", (~np.isfinite(rank)).sum())
    if table.names is not None or table.n_images is not None or "anchor" in table.columns:
        question, item = table.indices(question, item)
    else:
        (question,), item = table.indices(question), item.astype(str)
    return Rankings(question, item=item, rank=rank, **about).take(np.isfinite(rank))


# -- who, when, under what circumstances -------------------------------------------------------------------------------


def numbers(column: np.ndarray) -> np.ndarray:
    """A column as floats, NaN where it holds no number."""
    if column.dtype.kind in "iuf":
        return column.astype(np.float64)
    try:
        return np.char.strip(column.astype(str)).astype(np.float64)
    except ValueError:
        return np.array([_number(v) for v in column.astype(str)])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _about(table: Table, n: int) -> dict[str, np.ndarray | None]:
    """annotator, slot, condition, time and confidence of n answers."""
    named = next((name for name in COLUMNS["annotator"] if name in table.columns and name not in table.used), "")
    annotator, confidence = table.find("annotator"), table.find("confidence")
    condition = _condition(table)
    if annotator is None:
        table.notes.append("no annotators: all answers are one slot's, and nobody has a quality of his own")
        annotator, slot = np.zeros(n, np.int64), np.ones(n, bool)
    else:
        annotator, slot = _people(table, annotator, "slot" in named)
    about = {"annotator": annotator, "slot": slot if slot.any() else None, "condition": condition}
    return about | {"time": _seconds(table), "confidence": None if confidence is None else numbers(confidence)}


def _condition(table: Table) -> np.ndarray | None:
    if table.condition is None:
        return table.find("condition")
    if table.condition not in table.columns:
        raise ReadError(
            f"{table.where}: no column '{table.condition}' to compare by. Found: {', '.join(table.columns)}"
        )
    table.used.add(table.condition)
    return table.columns[table.condition].astype(str)


def _people(table: Table, annotator: np.ndarray, slots: bool) -> tuple[np.ndarray, np.ndarray]:
    """(annotators, which of them are slots). Bare numbers mean somebody else in each group, and nobody on a platform
    where every image is judged by whoever comes."""
    names = annotator.astype(str)
    slot = np.full(len(names), slots) | np.isin(np.char.lower(names), list(_NOBODY))
    numbered = all(_INDEX.fullmatch(name) or name.lower() in _NOBODY for name in np.unique(names))
    within = [c for c in COLUMNS["within"] if c in table.columns and table.columns[c].dtype.kind != "f"]
    if numbered and within and not slots:
        group = table.columns[within[0]].astype(str)
        slot |= np.array([bool(_PLATFORMS.search(g)) for g in group])
        table.notes.append(
            f"annotators are numbered within each {within[0]}: number 1 of one is not number 1 of another"
        )
        annotator = names = np.char.add(np.char.add(group, "/"), names)
    if slot.any():
        which = np.unique(names[slot]).tolist()
        shown = "" if slot.all() else f" ({_some(which)})"
        table.notes.append(f"{len(which)} of {len(np.unique(names))} annotators are slots{shown}, filled by whoever "
                           "came: they get no quality of their own")  # fmt: skip
    return annotator, slot


def _seconds(table: Table) -> np.ndarray | None:
    """Seconds that each answer took; None where the column tells the time of day instead."""
    name = next((c for c in COLUMNS["time"] if c in table.columns and c not in table.used), None)
    column = table.find("time")
    if column is None:
        return None
    values = numbers(column)
    if not np.isfinite(values).any() or np.nanmedian(values) > 1e8:
        table.notes.append(
            f"{name} tells when, not how long: not used; rows are taken to stand in the order of the answers"
        )
        return None
    table.count("no time", (~np.isfinite(values)).sum())
    return values / 1000 if name.endswith("_ms") else values
