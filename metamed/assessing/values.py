"""What each answer is worth, as numbers: does it agree with the others, is it right, how long did it take?"""

from __future__ import annotations

import numpy as np

from metamed.assessments import Ratings, Triplets

# measure -> (what it is, what it is called)
MEASURES = {
    "agreement": "share of the others who gave the same answer to the same question",
    "alpha": "agreement with the others beyond chance: 1 all alike, 0 as by chance (Krippendorff's alpha)",
    "accuracy": "share of right answers, where it is known what is right",
    "labels": "share of answers for the image of the anchor's class, where one candidate alone has it",
    "seconds": "seconds an answer took (geometric mean)",
    "drop-out": "share of people who stopped before half of what is usual",
    "learning": "second half of a person's answers minus the first: agreement or accuracy",
    "speeding up": "second half of a person's answers over the first: seconds, as a factor",
    "label AUC": "how well the mean score of an image tells its label (area under the ROC curve)",
}


def codes(*columns: np.ndarray) -> np.ndarray:
    """One number per distinct row of the columns, (n,)."""
    parts = [np.unique(np.asarray(c), return_inverse=True)[1].ravel() for c in columns]
    return np.unique(np.stack(parts, axis=1), axis=0, return_inverse=True)[1].ravel()


def people(answers: Triplets | Ratings) -> np.ndarray:
    """A number for whoever gave each answer; a slot's answers count as somebody else's each."""
    names = np.asarray(answers.annotator).astype(str)
    who = np.unique(names, return_inverse=True)[1].ravel()
    slot = ~answers.persistent
    who[slot] = who.max(initial=0) + 1 + np.arange(int(slot.sum()))
    return who


def questions(triplets: Triplets) -> tuple[np.ndarray, np.ndarray]:
    """(a number for each question, whatever the sides; was the image of the lower index called closer?)."""
    low, high = np.minimum(triplets.closer, triplets.farther), np.maximum(triplets.closer, triplets.farther)
    return codes(triplets.anchor, low, high), np.asarray(triplets.closer) == low


def agreement(triplets: Triplets) -> np.ndarray:
    """Of each answer, the share of the other people's answers to the same question that say the same; NaN without any.

    Attention checks are no questions about images and have none.
    """
    question, answer = questions(triplets)
    question = codes(question, conditions(triplets))
    mine = codes(question, people(triplets))
    others = np.bincount(question)[question] - np.bincount(mine)[mine]
    yes = np.bincount(question, answer)[question] - np.bincount(mine, answer)[mine]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = yes / others
    check = (triplets.closer == triplets.anchor) | (triplets.farther == triplets.anchor)
    return np.where((others == 0) | check, np.nan, np.where(answer, share, 1 - share))


def alpha(ratings: Ratings, score: np.ndarray) -> np.ndarray:
    """Of each answer, 1 minus its mean squared difference to the other people's scores of the same image, over what it
    would be by chance; NaN without others. The mean is Krippendorff's interval alpha of equally often rated images.

    Everything of one attribute and condition; score: as it is, or ranks.
    """
    image, mine = codes(ratings.image), codes(ratings.image, people(ratings))
    score = score - score.mean()

    def sums(code):
        return (np.bincount(code, w)[code] for w in (np.ones(len(score)), score, score**2))

    (n, s, q), (own_n, own_s, own_q) = sums(image), sums(mine)
    others = n - own_n
    used = others > 0
    chance = 2 * score[used].var(ddof=1) if used.sum() > 1 else 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = score**2 - 2 * score * (s - own_s) / others + (q - own_q) / others
        return np.where(used & (chance > 0), 1 - apart / chance, np.nan)


def ranked(ratings: Ratings, least: int = 10) -> np.ndarray:
    """Scores as ranks from 0 to 1 within each annotator, who has a scale of his own, attribute and condition; of an
    annotator with fewer than `least` answers, within all such of the condition. (n,)"""
    condition = codes(np.asarray(ratings.attribute).astype(str), conditions(ratings))
    whose = codes(condition, np.asarray(ratings.annotator).astype(str))
    few = np.bincount(whose)[whose] < least
    whose = codes(np.where(few, -1 - condition, whose))
    values, place = np.unique(np.asarray(ratings.score, np.float64), return_inverse=True)
    cell, row, size = np.unique(whose * len(values) + place.ravel(), return_inverse=True, return_counts=True)
    group, n = cell // len(values), np.bincount(whose)
    before = np.cumsum(size) - np.r_[0, np.cumsum(n)][group]  # answers of the same group up to and with this score
    return ((before - size / 2) / n[group])[row.ravel()]


def right(answers: Triplets | Ratings) -> np.ndarray:
    """Of each answer, 1 right, 0 wrong, NaN where nobody knows: a triplet's gold; a rating that is its gold score."""
    if answers.gold is None:
        return np.full(len(answers), np.nan)
    gold = np.asarray(answers.gold, np.float64)
    if isinstance(answers, Triplets):
        return np.where(gold < 0, np.nan, gold)
    return np.where(np.isnan(gold), np.nan, np.asarray(answers.score) == gold)


def constancy(answers: Triplets | Ratings) -> np.ndarray:
    """Of each answer to a question that the same annotator had answered before: was it the same as the first time?
    NaN for everything else, and for slots."""
    if isinstance(answers, Triplets):
        question, answer = questions(answers)
    else:
        question, answer = codes(answers.image, np.asarray(answers.attribute).astype(str)), np.asarray(answers.score)
    mine = codes(question, people(answers))
    first = np.unique(mine, return_index=True)[1][mine]
    return np.where(first < np.arange(len(mine)), answer == answer[first], np.nan)


def log_seconds(answers: Triplets | Ratings) -> np.ndarray:
    """Natural logarithm of each answer's seconds; NaN where unknown or not above 0."""
    if answers.time is None:
        return np.full(len(answers), np.nan)
    time = np.asarray(answers.time, np.float64)
    return np.log(np.where(time > 0, time, np.nan))


def halves(answers: Triplets | Ratings, value: np.ndarray, least: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """(people, second half of what each answered minus the first half, by mean): rows stand in order of the answers.

    least: known values that a person needs in each half.
    """
    who = np.where(answers.persistent, people(answers), -1)
    found, gap = [], []
    for person in np.unique(who[who >= 0]):
        mine = value[who == person]
        parts = [part[np.isfinite(part)] for part in (mine[: len(mine) // 2], mine[len(mine) // 2 :])]
        if min(map(len, parts)) >= least:
            found.append(person)
            gap.append(parts[1].mean() - parts[0].mean())
    return np.array(found, np.int64), np.array(gap, np.float64)


def conditions(answers: Triplets | Ratings) -> np.ndarray:
    """The condition of each answer; one number where there are none."""
    return np.zeros(len(answers), int) if answers.condition is None else np.asarray(answers.condition).astype(str)
