"""The page in short: which sentence each figure supports, chosen by its interval, never by hand."""

from __future__ import annotations

from benchmarks.choosing.questions import ORDER, Rows
from benchmarks.choosing.results import Effect

NOTHING = Effect(float("nan"), None, 0)
SMALL = 0.01  # AUC that hardly anybody would choose by


def at(rows: Rows, name: str, size: str) -> Effect:
    """The effect of a row at a size of the target."""
    return dict(rows).get(name, [NOTHING] * len(ORDER))[ORDER.index(size)]


def said(effect: Effect, more: str, less: str, same: str) -> str:
    """The words that an effect supports, with its figures."""
    words = {"more": more, "less": less}.get(effect.verdict, same)
    return f"{words} ({effect.text()})"


def summary(f) -> str:
    """One line an answer, then the beliefs that the runs speak against or for."""
    beliefs = "\n".join(f"| {belief} | {answer} |" for belief, answer in _beliefs(f))
    return "\n".join(_answers(f)) + f"\n\n| what one might think | what the runs say |\n|---|---|\n{beliefs}"


def _answers(f) -> list[str]:
    lines = [_stops(f.stakes), _several(f.ensembles), _scaling(f.scaling), _starts(f.starts), _tune(f.training)]
    lines.append(_tells(f.tells))
    return [f"* {line}" for line in [*lines, *map(_exam, f.exams)] if line]


def _stops(stakes: Rows) -> str:
    name = "best source known from other splits, against ImageNet"
    found = [(size, e) for size, e in zip(ORDER, dict(stakes)[name], strict=True) if e.ends]
    if not found:
        return ""
    matters = [size for size, e in found if e.verdict == "more" and e.mean >= SMALL]
    after = [size for size, _ in found if not matters or ORDER.index(size) > ORDER.index(matters[-1])]
    figures = ", ".join(f"{size}: {e.text()}" for size, e in found)
    lost = [at(stakes, "any source at random, against ImageNet", size).text() for size in ("50", "all")]
    if not matters:
        return (
            f"**No source was surely better than ImageNet by {SMALL} at any size** (the best known from other splits, "
            f"by target images: {figures}). A bad choice costs at every size: any source at random {lost[0]} at 50 and "
            f"{lost[1]} with all."
        )
    until = f"up to {matters[-1]} target images" if after else "at every size that was tried, all images included"
    return f"**Knowing the best source pays {until}** (gain over always taking ImageNet, by target images: {figures})."


def _several(ensembles: Rows) -> str:
    few, most = (at(ensembles, "mean of three published sources, against ImageNet alone", n) for n in ("50", "all"))
    control = at(ensembles, "two classifiers on ImageNet's features, against one", "50")
    heading = {"more": "Several sources beat one.", "less": "One source beats several."}
    return (
        f"**{heading.get(few.verdict, 'No difference shown between one source and several.')}** The mean of linear "
        f"probes on three published sources against ImageNet alone: {few.text()} at 50 images, {most.text()} with all. "
        f"Two classifiers on one source, the control: {control.text()} at 50."
    )


def _scaling(scaling: Rows) -> str:
    few, most = (at(scaling, "MobileNetV2 from ImageNet", n) for n in ("50", "all"))
    return (
        "How features are scaled matters as much as where they come from: one deviation for all of ImageNet's features "
        f"instead of one for each makes {few.text()} at 50 images, {most.text()} with all."
    )


def _starts(starts: Rows) -> str:
    random = [at(starts, "random weights, MobileNetV2", size) for size in ("50", "all")]
    small = [at(starts, "random weights, small CNN", size) for size in ("50", "all")]
    return (
        f"Frozen features of an untrained MobileNetV2 against ImageNet's: {random[0].text()} at 50 images and "
        f"{random[1].text()} with all; those of an untrained small CNN: {small[0].text()} and {small[1].text()}."
    )


def _tune(training: Rows) -> str:
    tuned = zip(ORDER, dict(training)["MobileNetV2, fine-tuned from ImageNet"], strict=True)
    figures = ", ".join(f"{e.text()} at {size}" for size, e in tuned if e.ends)
    return f"Fine-tuning against a linear probe of the same source: {figures}."


def _tells(tells: dict[str, Rows]) -> str:
    parts = []
    for start, words in (("chained", "tuned from ImageNet"), ("scratch", "from scratch")):
        sure = [(name, e) for name, (e,) in tells.get(start, []) if e.verdict in ("more", "less")]
        sure = sorted(sure, key=lambda row: -abs(row[1].mean))[:3]
        named = ", ".join(f"`{name}` {e.text(2)}" for name, e in sure)
        parts.append(f"sources {words}: {named or 'nothing that stands out'}")
    return "What goes with a better source (rank correlation over the sources of a task): " + "; ".join(parts) + "."


def _exam(result) -> str:
    asked = ("prior_list", "metamed", "log_me", "n_leep", "knn_transfer", "always ImageNet")
    marks = [
        (n.replace("_", " "), result.mean(n, "tau"), result.mean(n, "regret1")) for n in asked if n in result.marks
    ]
    figures = ", ".join(f"{name} {tau:.2f} / {regret:.3f}" for name, tau, regret in marks)
    return (
        f"Recommending a source for a target never seen ({result.name}; weighted tau / regret of the first pick): "
        f"{figures}."
    )


def _beliefs(f) -> list[tuple[str, str]]:
    variants = {name: effects[0] for name, effects in f.variants}
    tells = {name: effects[0] for name, effects in f.tells.get("chained", [])}
    several = at(f.ensembles, "the same, against the best of the three on validation", "200")
    found = []
    for start in ("small CNN from scratch", "from ImageNet on"):
        effect = at(f.medical, f"{start}, medical targets", "50")
        found.append((f"medical targets want medical sources ({start}, 50 images)",
                      said(effect, "they do", "natural ones are better", "no difference shown")))  # fmt: skip
        effect = at(f.modality, f"{start}: same modality, medical targets", "50")
        found.append((f"the same modality is better ({start}, 50 images)",
                      said(effect, "it is", "it is worse", "no difference shown")))  # fmt: skip
    near = tells.get("image_distance", NOTHING)
    found.append(("the more alike the images, the better the source",
                  said(near, "the opposite", "yes, on average", "no such order shown")))  # fmt: skip
    for belief, name in (
        ("a source needs many images", "50 images instead of 600"),
        ("more classes make better features", "two classes instead of six to ten, 300 images each"),
        ("colour in the source matters", "grey instead of colour"),
        ("labels are what a source teaches (from ImageNet on)", "labels shuffled, from ImageNet on"),
        ("anything learned beats random weights", "random weights instead of any source from scratch"),
    ):
        found.append((belief, said(variants.get(name, NOTHING), f"no: {name} is better", f"yes: {name} costs",
                                   f"no difference shown: {name}")))  # fmt: skip
    tuned = at(f.starts, "ImageNet, then a medical dataset", "200")
    found.append(("tune ImageNet on a medical dataset first, then use its features (200 images)",
                  said(tuned, "yes", "no: it forgets more than it learns", "no difference shown")))  # fmt: skip
    nothing = at(f.starts, "random weights, small CNN", "50")
    found.append(("frozen ImageNet features beat frozen random ones (50 images; against a small random CNN)",
                  said(nothing, "no", "yes", "no difference shown")))  # fmt: skip
    answer = said(several, "averaging three beats the best of them", "yes", "no difference shown")
    return [*found, ("find the one best source (200 images)", answer)]
