"""Recommending for bags: the variant, its encoder, what to expect, and how far its instances can be trusted."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_instances import bags

from metamed.dataset import ArrayImages
from metamed.errors import NotApplicable
from metamed.experiments import run_setup
from metamed.recommend import recommend
from metamed.recommend.bags import explained, possible
from metamed.records import Candidate, Setup
from metamed.report import render
from metamed.store import Store
from metamed.tasks import make_task
from metamed.trust.known import record_of

IMAGENET = "imagenet.coral.mobilenet_v2"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """Runs of three variants on three sets of bags."""
    store = Store(tmp_path_factory.mktemp("runs") / "runs.db")
    for seed in (1, 2, 3):
        data = bags(seed=seed)
        data = data.__class__(f"set{seed}", data.images, data.target, bags=data.bags, groups=data.groups)
        for method in ("miles", "bag_statistics", "single_instance"):
            assert run_setup(Setup(method), make_task(data), data, store, device="cpu").error is None
    return store


def test_setups_fit_what_the_instances_are():
    features, images = bags(), bags(8, 3, images=True)
    plain, seen = Setup("miles"), Setup("miles", {}, None, (IMAGENET,))
    network = Setup("attention")  # can learn its own encoder
    assert possible([plain, seen, network], features) == [plain, network]
    assert possible([plain, seen, network], images) == [seen, network]
    for data, setup, what in ((features, seen, "features"), (images, plain, "images")):
        with pytest.raises(NotApplicable, match=f"bags of {what}"):
            possible([setup], data)
    single = features.__class__("x", ArrayImages(np.zeros((4, 3, 8, 8))), np.array([0, 1, 0, 1]))
    assert possible([plain, seen], single) == [plain, seen]


def test_a_recommendation_names_variant_encoder_score_and_trust(store):
    answer = recommend(bags(seed=9), store, top=3)
    assert answer.kind == "mil"
    assert {c.setup.method for c in answer.ranking} == {"miles", "bag_statistics", "single_instance"}
    for c in answer.ranking:
        assert c.low <= c.score <= c.high
    text = render(answer)
    record = record_of(answer.ranking[0].setup.method)
    assert "Instances" in text and "encoder: none is chosen" in text and f"AUC {record.mean:.2f} on average" in text
    assert "metamed trust" in text
    assert json.loads(render(answer, "json"))["instances"] == answer.explanation["instances"]


def test_what_is_said_of_instances():
    setups = (Setup("miles", {}, None, (IMAGENET,)), Setup("mine"), Setup("miles", {"c": 1.0}, None, (IMAGENET,)))
    ranking = [Candidate(setup, 0.8, 0.7, 0.9) for setup in setups]
    lines = explained(bags(8, 3, images=True), ranking)["instances"]
    assert lines[0] == f"encoder of the instances, best first: {IMAGENET}, learned with the bags"
    assert lines[1].startswith("#1, #3: miles tells instances") and "not examined" in lines[2]
    single = bags().__class__("x", ArrayImages(np.zeros((4, 3, 8, 8))), np.array([0, 1, 0, 1]))
    assert explained(single, ranking) == {}


def test_nothing_heavy_is_imported_for_it():
    code = ("import sys, metamed.recommend.bags, metamed.trust.known\n"
            "heavy = {'torch', 'sklearn', 'pandas', 'xgboost', 'scipy', 'openml'} & set(sys.modules)\n"
            "assert not heavy, heavy")  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
