"""The commands about people's answers: collecting them, and how good they are."""

from pathlib import Path

from metamed.cli import options as o
from metamed.cli.given import read
from metamed.cli.options import Common, option

HOST = option(str, "--host", "Address to listen on; any but localhost shows the images to other machines.")
PORT = option(int, "--port", "Port to listen on.", min=0, max=65535)
STUDY = option(str, "--study", "Name of the study: people, answers and order of questions belong to it.")
QUESTIONS = option(int, "--questions", "Questions to each person.", min=1)
CHECKS = option(float, "--checks", "Share of attention checks: one candidate is the image itself.", min=0, max=1)
REPEATS = option(float, "--repeats", "Share of questions asked again, sides drawn anew.", min=0, max=1)
SHARED = option(float, "--shared", "Share of questions that everybody is asked.", min=0, max=1)
CONDITIONS = option(str, "--conditions", "plain | points | game, or several with commas: people are spread over them.")
ADAPTIVE = option(bool, "--adaptive", "Choose new questions whose answers promise most, instead of drawing them.")
AMONG = option(int, "--among", "Ask about this many of the images, evenly spread; 0: all.", min=0)
CONFIDENCE = option(bool, "--confidence", "Ask after each answer how sure one is.")
INSTRUCTION = option(str | None, "--instruction", "The question above the images.")
KEY = option(str | None, "--key", "Key that the address holds where other machines are let in; drawn if not given.")
EXPORT = option(Path | None, "--export", "Write the answers as a table (CSV) and stop.")


def collect(
    common: Common, dataset: o.DATASET, host: HOST = "localhost", port: PORT = 8080, study: STUDY = "first",
    questions: QUESTIONS = 100, checks: CHECKS = 0.05, repeats: REPEATS = 0.05, shared: SHARED = 0.1,
    conditions: CONDITIONS = "plain", adaptive: ADAPTIVE = False, among: AMONG = 0, confidence: CONFIDENCE = False,
    instruction: INSTRUCTION = None, key: KEY = None, images: o.IMAGES = None, export: EXPORT = None,
):  # fmt: skip
    """Ask people which images look alike, on a local web page; answers are kept in your store at once, each once."""
    from metamed import collecting
    from metamed.serving import LOOPBACK

    data, store = read(dataset, images), common.own()
    if export:
        print(f"{collecting.export(store, data, export, study)} answers written to {export}")
        return
    words = {"instruction": instruction} if instruction else {}
    settings = collecting.Settings(questions, checks, repeats, shared, tuple(conditions.split(",")),
                                   adaptive, among, confidence, **words)  # fmt: skip
    if host not in LOOPBACK:
        common.say("other machines can see these images: give the address, with its key, to nobody else. It is not "
                   "encrypted; put a server that speaks HTTPS before it where strangers share the network")  # fmt: skip

    def ready(address: str) -> None:
        print(f"asking at {address} (Ctrl-C stops; the answers lie in {store.path})", flush=True)

    collecting.collect(data, store, settings, study=study, host=host, port=port, key=key, ready=ready)


MINIMUM = option(float, "--minimum", "Quality below which annotators would be dropped.", min=0, max=1)
BY = option(str | None, "--by", "Compare conditions: 'condition', or the column of a table that tells it.")
REFERENCE = option(str | None, "--reference", "Condition that the others are compared with, instead of the largest.")
LABELS = option(str | None, "--labels", "Column or key of a label of each image: how well answers tell it.")
POWER = option(bool, "--power", "Also how many answers another study needs to see a difference of a given size.")
LEFT_OUT = option(bool, "--left-out", "Also how well the others predict each annotator: ten times the work.")
THEIR_STUDY = option(str | None, "--study", "Only the answers of this study that `collect` kept; else of all of them.")
PLOT = option(Path | None, "--plot", "With --by: draw the comparison as .svg, .png or .pdf.")


def assess(
    common: Common, dataset: o.DATASET, minimum: MINIMUM = 0.6, by: BY = None, reference: REFERENCE = None,
    labels: LABELS = None, power: POWER = False, left_out: LEFT_OUT = False, study: THEIR_STUDY = None,
    as_json: o.JSON = False, report: o.REPORT = None, plot: PLOT = None,
):  # fmt: skip
    """How good annotators are, who would be dropped, how conditions differ, what another study needs."""
    from metamed.assessing import assess as judge
    from metamed.assessing import showing

    found = judge(_answers(common, dataset, by, labels, study), minimum=minimum, by_condition=by is not None,
                  reference=reference, with_power=power, with_left_out=left_out, seed=common.seed)  # fmt: skip
    if report:
        showing.write(found, report)
    if plot and found[0].conditions is not None:
        from metamed.assessing.plots import save

        save(found[0].conditions, plot)
    print(showing.as_json(found) if as_json else showing.text(found))


def _answers(common: Common, dataset: str, by: str | None, labels: str | None, study: str | None):
    """What people said, in the file or beside it, and in the store where `collect` asked about the same images."""
    from metamed.assessing import with_answers
    from metamed.collecting import collected_triplets
    from metamed.readers import TABLES, assessments_of, read_assessments
    from metamed.store import default_path

    column = None if by in (None, "condition") else by
    if dataset.lower().endswith(TABLES):
        return read_assessments(dataset, condition=column, labels=labels)
    from metamed.readers import read as look

    data = look(dataset, labels=labels, condition=column)
    known = (common.store or default_path()).exists()
    return with_answers(assessments_of(data), collected_triplets(common.own(), data, study) if known else None)
