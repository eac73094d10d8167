"""The commands about instances of bags: how far they can be trusted, and what to ask an expert about them."""

import sys
from pathlib import Path

from metamed.cli import options as o
from metamed.cli.given import columns, json_text, read
from metamed.cli.options import Common, option
from metamed.errors import MetamedError

RUN = option(str, "--run", "Id of a run on these bags, or its first 8 digits.", show_default=False)
LEARNER = option(str | None, "--run", "A run whose setup asks and learns; one that learns in seconds if not given.")
RESAMPLINGS = option(int, "--resamplings", "Times that it is learned again on a part of the bags.", min=2)
SEEDS = option(int, "--seeds", "Times that it is learned again with another seed.", min=1)
QUESTIONS = option(int, "--questions", "Questions to have open; 0: only say what the answers gained.", min=0)
BY = option(str, "--by", "How questions are chosen: see docs/trust.md.")
TABLE = option(Path, "--to", "Table of the questions and answers; one that exists is gone on with.")
PAGE = option(bool, "--page", "Ask on a page of this machine, which shows the images.")
LATER = option(bool, "--later", "Only write the questions: the table is filled in elsewhere.")
SCORES = option(Path | None, "--scores", "Write the score of every instance, learned with the answers, to this file.")


def trust(
    common: Common, dataset: o.DATASET, run: RUN, resamplings: RESAMPLINGS = 5, seeds: SEEDS = 3,
    device: o.DEVICE = None, images: o.IMAGES = None, labels: o.LABELS = None, group: o.GROUP = None,
    as_json: o.JSON = False,
):  # fmt: skip
    """Say how far the instances (patches) of a run on bags can be trusted, without any instance's label."""
    from metamed.experiments import run_of
    from metamed.trust.examining import as_dict, as_text, examine

    evidence, data = common.evidence(), read(dataset, images, labels, group, "mil")
    found = examine(run_of(run, evidence), data, evidence, resamplings=resamplings, seeds=seeds,
                    device=device or "auto")  # fmt: skip
    print(json_text(as_dict(found)) if as_json else as_text(found))


def ask(
    common: Common, dataset: o.DATASET, questions: QUESTIONS = 20, by: BY = "uncertain_diverse",
    to: TABLE = Path("questions.csv"), page: PAGE = False, later: LATER = False, scores: SCORES = None,
    run: LEARNER = None, device: o.DEVICE = None, images: o.IMAGES = None, labels: o.LABELS = None,
    group: o.GROUP = None,
):  # fmt: skip
    """Ask an expert about the few instances (patches) whose verification promises most, and say what it gained."""
    from metamed.asking.session import Session
    from metamed.experiments import run_of

    evidence, data = common.evidence(), read(dataset, images, labels, group, "mil")
    setup = evidence.get(run_of(run, evidence).setup) if run else None
    session = Session.of(data, to, evidence, setup, device or "auto", lambda *known: common.own().add_features(*known))
    new = session.choose(questions, by, common.seed)
    common.say(f"{new} new questions, {sum(not q.answer for q in session.questions)} open, in {to}")
    if later:
        return
    if questions:
        _put(session, page, common)
    print(_gained(session, common.seed))
    if scores:
        session.write_scores(scores, common.seed)
        common.say(f"scores of all instances written to {scores}")


def _put(session, page: bool, common: Common) -> None:
    """Ask what is open, on a page or on the terminal."""
    if page:
        shown = session.page()
        print(f"asking at {shown.address} (Ctrl-C stops; every answer is kept at once)", flush=True)
        try:
            shown.serve()
        except KeyboardInterrupt:
            common.say("stopped; the same command goes on")
    elif sys.stdin.isatty():
        from metamed.asking.prompt import ask_on_terminal

        ask_on_terminal(session.questions, session.classes, session.keep)
    elif not session.answers:
        raise MetamedError(f"nobody can answer here: fill in {session.table} and run this again, or pass --page")


def _gained(session, seed: int) -> str:
    """How many answers of which kind there are, and what they gained."""
    counts = [(name, sum(q.answer == name for q in session.questions)) for name in (*session.classes, "?")]
    said = ", ".join(f"{n} {name if name != '?' else 'cannot tell'}" for name, n in counts if n)
    if not session.answers:
        return f"no answers in {session.table}: nothing was learned"
    rows = [(g.measure, f"{g.before:.3f} without", f"{g.after:.3f} with", f"gain {g.difference:+.3f}",
             f"[{g.low:+.3f}, {g.high:+.3f}]", f"{g.n} {g.measure.split()[0]}s held out")
            for g in session.gains(seed)]  # fmt: skip
    return f"{said}\n{columns(rows)}\n90 % intervals; instances asked about are no random sample"
