"""Kinds of labels that are outlined in images, told from their names and settled by their shapes.

How hard a segmentation is depends on the label far more than on the dataset: whoever predicts a Dice asks for it first.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping

from metamed.errors import UnknownName

KINDS = {  # kind -> beginnings of words that tell it, tried in this order
    "tool": ("instrument", "tool", "forceps", "scissor", "needle", "catheter", "stent"),
    "thin structure": ("vessel", "vein", "arter", "nerve", "membrane", "fibre", "fiber", "duct", "axon", "neurite",
                       "capillar", "bronch", "hair"),
    "cells": ("cell", "nucle", "cytoplasm", "bacteri", "yeast", "mitochond", "platelet", "erythro", "leuko"),
    "tumour": ("tumour", "tumor", "cancer", "carcinom", "metasta", "neoplas", "gliom", "necro", "enhancing"),
    "lesion": ("lesion", "polyp", "nodule", "melanom", "naev", "nevus", "ulcer", "edema", "oedema", "infarct", "stroke",
               "hemorrhag", "haemorrhag", "exudate", "aneurysm", "fluid", "cyst", "opacit", "consolid", "effusion"),
    "part of an organ": ("zone", "lobe", "segment", "optic cup", "cartilage"),
    "organ": ("organ", "liver", "kidney", "spleen", "pancrea", "heart", "cardiac", "ventric", "atri", "myocard", "lung",
              "prostat", "bladder", "gallbladder", "uterus", "hippocamp", "brain", "stomach", "aorta", "bone", "rib",
              "vertebra", "symphysis", "head", "muscle", "thyroid", "gland", "breast", "disc", "disk", "tooth", "teeth",
              "colon", "rectum", "femur", "femor", "cerebell", "amygdal", "caudate", "putamen", "thalam", "matter"),
}  # fmt: skip
ASKED = (*KINDS, "part of a tumour")
MANY, COMPACT, THREAD = 8, 0.5, 0.1  # regions an image; isoperimetric quotient of a blob, and of a thread


def label_kind(name: str) -> str:
    """One of `KINDS` that a name tells, "" where no word does; words count from their beginning ("vessels")."""
    text = re.sub(r"[_\-]+", " ", name.lower())
    for kind, words in KINDS.items():
        if any(re.search(r"\b" + word, text) for word in words):
            return kind
    return ""


def common_kind(kinds: Iterable[str]) -> str:
    """The kind of most labels, the first of equally many; "" where none is known."""
    counted = Counter(filter(None, kinds))
    return counted.most_common(1)[0][0] if counted else ""


def named_kind(classes: tuple[str, ...], *otherwise: str) -> str:
    """The kind that the names of the foreground classes tell, else the first of other names that tells one."""
    return common_kind(map(label_kind, classes[1:])) or next(filter(None, map(label_kind, otherwise)), "")


def settled_kind(named: str, compactness: float, components: float) -> str:
    """The kind of a label whose shape was measured: a name goes before a shape, but for thin structures cut across.

    compactness: isoperimetric quotient, 1 of a disc. components: regions an image. NaN where nothing was measured.
    """
    if named == "thin structure" and compactness >= COMPACT:
        return "organ"  # a vessel seen end on is as easy to outline as an organ
    if named or math.isnan(compactness):
        return named
    return "cells" if components >= MANY else "thin structure" if compactness < THREAD else ""


def vector_kind(vector: Mapping) -> str:
    """The kind of a described dataset: what its facts say, else its names, settled by the shapes that were measured."""
    measured = (float(vector.get(n, math.nan)) for n in ("compactness.mean", "component_count.mean"))
    return settled_kind(str(vector.get("label_kind") or ""), *measured)


def asked_kinds(said: Iterable[str], classes: tuple[str, ...]) -> dict[str, str]:
    """Class -> kind from answers such as "tumour" (of all labels) or "liver=organ" (of one). Raises UnknownName."""
    found: dict[str, str] = {}
    for answer in said:
        name, equals, kind = answer.rpartition("=")
        if kind not in ASKED:
            raise UnknownName("kind of label", kind, ASKED)
        if equals and name not in classes[1:]:
            raise UnknownName("class in the masks", name, classes[1:])
        found |= {name: kind} if equals else dict.fromkeys(classes[1:] or ("",), kind)
    return found
