"""What somebody is asked next, and what his answers are worth in points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from metamed.collecting.choosing import Chooser
from metamed.errors import MetamedError
from metamed.store.collected import Answer, Collected, Person, Question

GAMIFIED = {"plain": (), "points": ("points",), "game": ("points", "leaderboard")}  # condition -> what it shows
SHARED = 500  # questions that everybody gets, the same for all and in the same order
APART = 8  # questions between one and its repeat, at least
FIRST_CHECK = 2  # questions before the first attention check
POINTS = {"answer": 10, "right": 10, "wrong": -20, "same": 10}  # for any; for checks; for a repeat answered alike


@dataclass(frozen=True)
class Settings:
    """How a study asks.

    questions: to each person. checks, repeats, shared: share of them that show the anchor itself as a candidate, that
    were asked before, that everybody is asked. conditions: of GAMIFIED; people are spread over them. among: images that
    are asked about, evenly spread; 0 for all. adaptive: are new questions chosen, or drawn at random? confidence: is it
    asked for?
    """

    questions: int = 100
    checks: float = 0.05
    repeats: float = 0.05
    shared: float = 0.1
    conditions: tuple[str, ...] = ("plain",)
    adaptive: bool = False
    among: int = 0
    confidence: bool = False
    instruction: str = "Which of the two images below looks more like the one above?"

    def __post_init__(self):
        if unknown := set(self.conditions) - set(GAMIFIED):
            raise MetamedError(f"condition '{sorted(unknown)[0]}' is not known. Use {', '.join(GAMIFIED)}, with commas")
        if not self.conditions or self.questions < 1 or self.among < 0 or 0 < self.among < 4:
            raise MetamedError("a study needs a condition, 1 or more questions, and 4 or more images")
        shares = (self.checks, self.repeats, self.shared)
        if min(shares) < 0 or sum(shares) > 1:
            raise MetamedError(f"shares of checks, repeats and shared are {shares}: 0 or more, together up to 1")


@dataclass(frozen=True, eq=False)
class Asker:
    """Asks the people of one study. All that it knows of them lies in the store."""

    collected: Collected
    study: str
    settings: Settings
    chooser: Chooser

    def next(self, person: Person) -> Question | None:
        """The question that somebody has before him: the one he has not answered, or a new one; None at the end."""
        if (pending := self.collected.pending(person.id)) is not None:
            return pending
        answers = self.collected.answers(person.id)
        if len(answers) >= self.settings.questions:
            return None
        rng = _rng(person.id, len(answers))
        kind, (anchor, first, second) = self._pick(rng, answers)
        sides = (first, second) if rng.random() < 0.5 else (second, first)
        return self.collected.ask(self.study, person, len(answers), kind, (anchor, *sides))

    def _pick(self, rng: np.random.Generator, answers: Sequence[Answer]) -> tuple[str, tuple[int, int, int]]:
        s, drawn = self.settings, rng.random()
        if drawn < s.checks and len(answers) >= FIRST_CHECK:
            anchor, other, _ = self.chooser.images[self.chooser.draw(rng)[0]].tolist()
            return "check", (anchor, anchor, other)
        if s.checks <= drawn < s.checks + s.repeats and (old := _repeatable(answers)):
            q = old[rng.integers(len(old))]
            return "repeat", (q.anchor, q.left, q.right)
        if s.checks + s.repeats <= drawn < s.checks + s.repeats + s.shared:
            done = sum(a.question.kind == "shared" for a in answers)
            if done < SHARED:
                return "shared", self._shared(done)
        return "new", self.chooser.choose(rng)

    def _shared(self, number: int) -> tuple[int, int, int]:
        rng = _rng(self.collected.digest, self.collected.name or "", len(self.chooser.images))
        return tuple(self.chooser.images[self.chooser.draw(rng, SHARED)[number]].tolist())


def _repeatable(answers: Sequence[Answer]) -> list[Question]:
    """Questions about images that were answered a while ago and not repeated since."""
    repeated = {_asked(a.question) for a in answers if a.question.kind == "repeat"}
    old = [a.question for a in answers[: max(len(answers) - APART, 0)] if a.question.kind in ("new", "shared")]
    return [q for q in old if _asked(q) not in repeated]


def _asked(question: Question) -> tuple[int, int, int]:
    """What a question asks, whatever the sides."""
    return (question.anchor, *sorted((question.left, question.right)))


def _rng(*words: object) -> np.random.Generator:
    """The same stream for the same words, on any machine and after any restart."""
    return np.random.default_rng(list(sha256(repr(words).encode()).digest()[:16]))


def chosen(answer: Answer) -> tuple[int, int]:
    """(the image that was called closer, the other one)."""
    q = answer.question
    return (q.left, q.right) if answer.side == 0 else (q.right, q.left)


def gold(answer: Answer) -> int:
    """1 right, 0 wrong, of an attention check; -1 of any other question."""
    return -1 if answer.question.kind != "check" else int(chosen(answer)[0] == answer.question.anchor)


def points(answers: Sequence[Answer]) -> int:
    """What one person's answers are worth, never below 0."""
    total, before = 0, {}
    for answer in answers:
        total += POINTS["answer"]
        if (right := gold(answer)) >= 0:
            total += POINTS["right"] if right else POINTS["wrong"]
        if answer.question.kind == "repeat" and before.get(_asked(answer.question)) == chosen(answer):
            total += POINTS["same"]
        before.setdefault(_asked(answer.question), chosen(answer))
    return max(total, 0)
