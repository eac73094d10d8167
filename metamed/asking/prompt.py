"""Questions on a terminal, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from metamed.asking.questions import UNSURE, Question, named
from metamed.errors import ReadError

STOP = "q"


def ask_on_terminal(
    questions: Sequence[Question],
    classes: Sequence[str],
    keep: Callable[[list[Question]], None],
    say: Callable[[str], None] = print,
    hear: Callable[[str], str] = input,
) -> list[Question]:
    """The questions with what was answered; `keep` gets all of them after every answer. Ends at `q` or end of input."""
    done = list(questions)
    choices = "  ".join(f"[{k}] {name}" for k, name in enumerate(classes))
    say(f"{sum(not q.answer for q in done)} questions. Answer {choices}  [{UNSURE}] cannot tell  [{STOP}] stop")
    for place, q in enumerate(done):
        if q.answer:
            continue
        answer = _heard(f"{place + 1}/{len(done)}  {described(q)}: ", classes, say, hear)
        if answer is None:
            break
        done[place] = replace(q, answer=answer)
        keep(done)
    return done


def described(q: Question) -> str:
    """Which instance is asked about, in words. Nothing of its score: who knows it sees what it says."""
    where = "" if q.x is None else f" at ({q.x:g}, {q.y:g})"
    return f"instance {q.instance} of bag {q.bag}{where}"


def _heard(text: str, classes: Sequence[str], say: Callable, hear: Callable) -> str | None:
    """A valid answer, asked for again until there is one; None where the expert stops."""
    while True:
        try:
            said = hear(text).strip()
        except EOFError:
            return None
        if said.lower() == STOP and STOP not in classes:
            return None
        try:
            if answer := named(said, classes, "answer"):
                return answer
        except ReadError as error:
            say(str(error))
