"""Makes docs/examples/retina.h5, a small part of a real set of retinal photographs, from the developers' copy.

    METAMED_SHARED=/path/to/shared python -m benchmarks.make_example [TARGET]

Whole patients are drawn by seed, in proportion to the grade of the worse eye; equal input gives an equal file.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

SOURCE = "data/cls/dr_fundus_rahim.h5"
TARGET = Path(__file__).parents[1] / "docs" / "examples" / "retina.h5"
PATIENTS, SIDE, SEED, CHUNK = 75, 64, 0, 25
LICENCE, LICENCE_URL = "CC BY-NC 4.0", "https://creativecommons.org/licenses/by-nc/4.0/"


def choose_patients(patients: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """PATIENTS of the patients, every grade (of the worse eye) in proportion and at least twice."""
    names, index = np.unique(patients, return_inverse=True)
    worst = np.zeros(len(names), int)
    np.maximum.at(worst, index, labels)
    rng, chosen = np.random.default_rng(SEED), []
    for grade in np.unique(worst):
        mine = np.flatnonzero(worst == grade)
        share = max(2, round(PATIENTS * len(mine) / len(names)))
        chosen.append(rng.choice(mine, share, replace=False))
    return names[np.sort(np.concatenate(chosen))]


def small(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def facts(source: h5py.AttributeDict, n: int) -> dict[str, str]:
    repository = source["source_repo"].removeprefix("github:")
    return {
        "name": "retina",
        "classes": source["classes"],
        "modality": source["modality"],
        "organ": source["organ"],
        "licence": LICENCE,
        "licence_url": LICENCE_URL,
        "url": f"https://github.com/{repository}",
        "attribution": f"{source['original_paper']}, https://github.com/{repository}, commit {source['source_commit']}",
        "family": source["name"],
        "changes": f"{n} of {source['original_size']} photographs: whole patients drawn by seed; the ten folders "
        f"merged to five grades; black margins cut off; reduced to {SIDE}x{SIDE} (Lanczos); patients renumbered",
    }


def licence_text(attributes: dict[str, str]) -> str:
    return f"""retina.h5 is licensed under Creative Commons Attribution-NonCommercial 4.0 International ({LICENCE}).
Licence text: {LICENCE_URL}legalcode (summary: {LICENCE_URL})
It is an example for the documentation, not part of the installed package, and not covered by the package's licence.
Commercial use is not permitted by this licence.

Attribution: {attributes["attribution"]}
Grades: {", ".join(json.loads(attributes["classes"]))}
Changes: {attributes["changes"]}.

The material is offered as is, without warranties of any kind (section 5 of the licence). The author of the
photographs does not endorse this package or this use.
"""


def main(target: Path = TARGET) -> None:
    shared = Path(os.environ.get("METAMED_SHARED", Path(__file__).parents[2] / "shared"))
    with h5py.File(shared / SOURCE, "r") as file:
        patients, labels = file["patient_id"].asstr()[:], file["labels"][:]
        rows = np.flatnonzero(np.isin(patients, choose_patients(patients, labels)))
        images = np.stack([small(file["images"][int(row)]) for row in rows])
        attributes = facts(file.attrs, len(rows))
    number = np.unique(patients[rows], return_inverse=True)[1]
    target.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(target, "w") as file:
        file.create_dataset("images", data=images, chunks=(CHUNK, SIDE, SIDE, 3), compression="gzip",
                            compression_opts=9, shuffle=False, track_times=False)  # fmt: skip
        file.create_dataset("labels", data=labels[rows].astype(np.uint8), track_times=False)
        names = [f"patient {n + 1:03d}" for n in number]
        file.create_dataset("patient_id", data=names, dtype=h5py.string_dtype(length=11), track_times=False)
        file.attrs.update(attributes)
    target.with_suffix(".LICENSE.txt").write_text(licence_text(attributes), encoding="utf-8", newline="\n")
    print(f"{target}: {len(rows)} images of {number.max() + 1} patients, {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
