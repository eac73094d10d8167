"""Annotators and conditions: known answers, tests that keep their level, power that is reached, real data."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_1samp, mannwhitneyu, spearmanr, ttest_ind, uniform

from metamed.assessing import assess, showing, values
from metamed.assessing.conditions import compare
from metamed.assessing.differences import auc, auc_difference, difference, holm, rank_correlation, unit_means
from metamed.assessing.power import components, people_needed, power
from metamed.assessing.raters import rater_quality
from metamed.assessments import Ratings, Triplets
from metamed.cli import call
from metamed.errors import MetamedError, NotApplicable, UnknownName
from metamed.readers import Assessments, read_assessments


def ratings(rows, **more) -> Ratings:
    image, annotator, score = zip(*rows, strict=True)
    return Ratings(np.array(image), np.array(annotator), np.full(len(rows), "size"), np.array(score, float), **more)


def study(rng, people=(12, 12), answers=40, skill=(0.75, 0.75), seconds=(3.0, 3.0), images=30) -> Triplets:
    """People under "plain" and "game": each is right with his condition's probability, on 40 questions of few."""
    rows = []
    asked = np.array([rng.permutation(images)[:3] for _ in range(60)])
    for k, (n, share, time) in enumerate(zip(people, skill, seconds, strict=True)):
        for person in range(n):
            for question in rng.choice(len(asked), answers, replace=False):
                right = rng.random() < share
                anchor, a, b = asked[question]
                rows.append((anchor, *((a, b) if right else (b, a)), f"{k}.{person}", ("plain", "game")[k], right,
                             time * rng.lognormal(0, 0.3)))  # fmt: skip
    anchor, closer, farther, who, condition, right, time = (np.array(c) for c in zip(*rows, strict=True))
    return Triplets(anchor, closer, farther, who, condition=condition, gold=right.astype(int), time=time)


# -- values of answers


def test_agreement_is_with_other_people_on_the_same_question():
    t = Triplets(
        np.array([0, 0, 0, 0, 5]), np.array([1, 2, 1, 1, 6]), np.array([2, 1, 2, 2, 7]), np.array(list("abcaa"))
    )
    assert values.agreement(t)[:4] == pytest.approx([0.5, 0, 0.5 * 4 / 3, 0.5])  # a's second answer is no other person
    assert np.isnan(values.agreement(t)[4])
    slots = Triplets(t.anchor, t.closer, t.farther, np.array(list("aaaaa")), slot=np.ones(5, bool))
    assert values.agreement(slots)[0] == pytest.approx(2 / 3)  # whoever filled the slot: three others, one disagrees


def test_alpha_is_krippendorffs():
    """The mean of the values is the alpha that the meta-feature has, where all images are rated equally often."""
    from metamed.dataset import ArrayImages, Dataset
    from metamed.metafeatures import extract

    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 40)
    rows = [(i, who, np.clip(truth[i] + rng.integers(-1, 2), 0, 4)) for i in range(40) for who in "abc"]
    r = ratings(rows)
    known = extract(Dataset("x", ArrayImages(np.zeros((40, 1, 8, 8), np.uint8)), ratings=r), "crowd")["alpha_interval"]
    assert values.alpha(r, r.score).mean() == pytest.approx(known, abs=1e-9)


def test_ranks_forget_the_scale_of_each_annotator():
    rows = [(i, "a", i) for i in range(12)] + [(i, "b", 100 * i + 7) for i in range(12)]
    ranked = values.ranked(ratings(rows))
    assert np.allclose(ranked[:12], ranked[12:]) and np.allclose(ranked[:12], (np.arange(12) + 0.5) / 12)
    few = values.ranked(ratings([(0, "a", 3), (1, "b", 5)]))  # too few for ranks of their own
    assert few.tolist() == [0.25, 0.75]


def test_constancy_and_halves():
    t = Triplets(np.zeros(4, int), np.array([1, 2, 1, 3]), np.array([2, 1, 2, 4]), np.array(list("aaba")))
    assert values.constancy(t)[1] == 0 and np.isnan(values.constancy(t)[[0, 2, 3]]).all()
    r = ratings([(i, "a", 0) for i in range(8)])
    who, gap = values.halves(r, np.r_[np.zeros(4), np.ones(4)])
    assert gap.tolist() == [1.0] and len(who) == 1
    assert len(values.halves(ratings([(i, "a", 0) for i in range(8)], slot=np.ones(8, bool)), np.ones(8))[0]) == 0


# -- differences


def test_differences_against_scipy():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.6, 1, 40), rng.normal(0, 1.5, 50)
    d = difference((np.arange(40), np.arange(100, 150)), (a, b))
    t = ttest_ind(a, b, equal_var=False)
    assert (
        not d.paired and d.difference == pytest.approx(a.mean() - b.mean()) and d.p == pytest.approx(t.pvalue, abs=0.02)
    )
    assert (d.low, d.high) == pytest.approx(tuple(t.confidence_interval(0.95)))
    same = difference((np.arange(40), np.arange(40)), (a, b[:40]))
    assert same.paired and same.n == (40, 40)


def test_few_units_are_tested_exactly():
    d = difference((np.arange(3), np.arange(3, 6)), (np.array([1.0, 2, 3]), np.array([4.0, 5, 6])))
    assert d.p == pytest.approx(2 / 20)
    d = difference((np.arange(6), np.arange(6)), (np.arange(6.0) + 1, np.arange(6.0)))
    assert d.p == pytest.approx(2 / 64) and d.difference == 1
    alone = difference((np.arange(1), np.arange(3, 6)), (np.ones(1), np.zeros(3)))
    assert np.isnan(alone.p) and alone.first == 1


def test_the_permutation_tests_keep_their_level():
    """Without any difference p is uniform, or a little larger."""
    rng = np.random.default_rng(2)
    paired = [difference((np.arange(20),) * 2, tuple(rng.exponential(1, (2, 20))), seed).p for seed in range(120)]
    between = [difference((np.arange(9), np.arange(9, 20)), (rng.exponential(1, 9), rng.exponential(1, 11)), seed).p
               for seed in range(120)]  # fmt: skip
    label = np.arange(60) % 3 == 0
    areas = [auc_difference(*rng.normal(size=(2, 60)), label, seed).p for seed in range(60)]
    for p in (paired, between, areas):
        assert ks_1samp(p, uniform.cdf, alternative="greater").pvalue > 0.001


def test_the_area_under_the_curve_and_rank_correlation():
    rng = np.random.default_rng(3)
    label, score = np.arange(50) % 2 == 0, rng.integers(0, 8, 50).astype(float)
    u = mannwhitneyu(score[label], score[~label]).statistic
    assert auc(score, label) == pytest.approx(u / (25 * 25))
    assert auc(np.stack([score, -score]), label).sum() == pytest.approx(1)
    better = auc_difference(score + 5 * label, score, label)
    assert better.p < 0.01 and better.low > 0 and better.first > better.second
    other = score + rng.normal(0, 2, 50)
    value, low, high, p = rank_correlation(score, other)
    assert value == pytest.approx(spearmanr(score, other).statistic) and low < value < high and p < 0.01
    assert np.isnan(rank_correlation(np.ones(9), np.arange(9))[0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_holms_adjustment(p):
    adjusted = holm(np.array(p))
    assert (adjusted >= np.array(p) - 1e-12).all() and adjusted.min() == pytest.approx(min(1, min(p) * len(p)))
    assert np.array_equal(np.argsort(p, kind="stable"), np.argsort(adjusted, kind="stable")) or len(
        set(adjusted)
    ) < len(p)


def test_means_of_units_leave_out_what_is_unknown():
    units, means = unit_means(np.array([2, 1, 2, 3]), np.array([1.0, 5, 3, np.nan]))
    assert units.tolist() == [1, 2] and means.tolist() == [5, 2]


# -- conditions


def test_a_difference_that_is_there_is_found_and_none_where_none_is():
    rng = np.random.default_rng(0)
    found = compare(study(rng, skill=(0.65, 0.85), seconds=(3.0, 2.0)), reference="plain")
    by = {c.measure: c for c in found.comparisons}
    assert set(by) == {"accuracy", "agreement", "drop-out", "seconds", "speeding up", "learning"}
    assert all(c.unit == "people" and not c.difference.paired for c in by.values())
    accuracy = by["accuracy"].difference
    assert accuracy.low < 0.2 < accuracy.high and accuracy.p < 0.001 and accuracy.effect > 1
    assert np.exp(by["seconds"].difference.difference) == pytest.approx(2 / 3, rel=0.1)
    assert by["agreement"].difference.p < 0.01 and by["learning"].difference.p > 0.01
    none = {c.measure: c for c in compare(study(np.random.default_rng(1))).comparisons}
    assert (
        none["accuracy"].difference.p > 0.01 and none["accuracy"].difference.low < 0 < none["accuracy"].difference.high
    )


def test_learning_and_dropping_out():
    rng, parts = np.random.default_rng(0), []
    for k, condition in enumerate(("plain", "game")):
        for person in range(10):
            n = 40 if k or person > 4 else 10  # half of the plain ones stop early
            chance = np.linspace(0.5, 0.5 + 0.4 * k, n)  # players learn
            parts += [(i, f"{k}{person}", condition, rng.random() < chance[i], 3.0) for i in range(n)]
    i, who, condition, right, time = (np.array(c) for c in zip(*parts, strict=True))
    t = Triplets(i, i + 1, i + 2, who, condition=condition, gold=right.astype(int), time=time)
    by = {c.measure: c.difference for c in compare(t, reference="plain").comparisons}
    assert by["drop-out"].second == 0.5 and by["drop-out"].first == 0 and by["drop-out"].p < 0.05
    assert by["learning"].first > 0.1 and by["learning"].p < 0.05


def test_scales_that_differ_are_brought_to_ranks_and_said():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=60)
    rows, condition = [], []
    for who in range(6):
        for i in range(60):
            score = truth[i] + rng.normal(0, 0.5)
            rows.append((i, f"w{who}", round(score) if who < 3 else round(100 + 30 * score)))
            condition.append("small" if who < 3 else "large")
    r = ratings(rows, condition=np.array(condition))
    found = compare(r, labels=(truth > 0).astype(float), reference="small")
    assert any("different scales" in note and "ranks within each annotator" in note for note in found.notes)
    (correlation,) = found.correlations
    assert correlation.low > 0.7 and correlation.images == 60
    by = {c.measure: c for c in found.comparisons}
    assert by["alpha"].unit == "people" and abs(by["alpha"].difference.difference) < 0.2
    assert by["label AUC"].unit == "images" and by["label AUC"].difference.first > 0.9
    assert found.groups[0].scales["size"][:2] != found.groups[1].scales["size"][:2]
    alike = compare(ratings(rows[:180] * 2, condition=np.repeat(["a", "b"], 180)))
    assert not any("scales" in note for note in alike.notes)


def test_slots_are_compared_by_images():
    rng = np.random.default_rng(0)
    rows = [(i, f"{k}{who}", rng.integers(0, 3)) for k in "ab" for who in range(3) for i in range(40)]
    r = ratings(rows, condition=np.array([who[0] for _, who, _ in rows]), slot=np.ones(len(rows), bool))
    found = compare(r)
    assert {c.unit for c in found.comparisons} == {"images"} and found.comparisons[0].difference.paired
    assert {c.measure for c in found.comparisons} == {"alpha"}  # slots neither stop nor learn


def test_what_cannot_be_compared():
    t = study(np.random.default_rng(0))
    with pytest.raises(NotApplicable, match="one condition alone"):
        compare(t.take(t.condition == "game"))
    with pytest.raises(UnknownName, match="did you mean plain"):
        compare(t, reference="plane")


# -- power


def test_a_study_of_the_size_that_was_told_finds_the_difference():
    """People differ by 0.1, answers are right or wrong: of 60 simulated studies about 80 % find the difference."""
    rng, effect, answers = np.random.default_rng(0), 0.1, 40
    within = np.sqrt(0.7 * 0.3)
    n = people_needed(effect, 0.1**2 + within**2 / answers)
    assert 20 <= n <= 26
    found = 0
    for _ in range(60):
        shares = [np.clip(rng.normal(mean, 0.1, n), 0, 1) for mean in (0.7, 0.7 - effect)]
        means = [rng.binomial(answers, share) / answers for share in shares]
        found += difference((np.arange(n), np.arange(n, 2 * n)), tuple(means)).p < 0.05
    assert 39 <= found <= 57
    assert people_needed(0.5, 1.0) == 64  # Cohen's table: d = 0.5


def test_the_spread_of_people_is_told_from_that_of_answers():
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(200), rng.integers(10, 40, 200))
    mean, between, within = components(rng.normal(0, 0.2, 200)[who] + rng.normal(0.5, 1.0, len(who)), who)
    assert mean == pytest.approx(0.5, abs=0.05) and between == pytest.approx(0.2, abs=0.06)
    assert within == pytest.approx(1.0, abs=0.03)


def test_power_from_answers_or_supposed():
    needs = power(study(np.random.default_rng(0)))
    assert {p.measure for p in needs} == {"accuracy", "agreement"} and all(p.known for p in needs)
    by = {n.effect: n for n in needs[0].needs if n.answers == 50}
    assert by[0.02].people > by[0.05].people > by[0.1].people and by[0.1].assessments == 100 * by[0.1].people
    one = Triplets(np.array([0]), np.array([1]), np.array([2]), np.array(["a"]))
    assert [p.known for p in power(one)] == [False]


# -- annotators


def test_raters_by_the_order_that_they_give():
    rng = np.random.default_rng(0)
    truth, rows = rng.normal(size=80), []
    for who, sense in (("good", 1), ("better", 1), ("also", 1), ("upside", -1), ("guess", 0)):
        rows += [(i, who, round(2 * (sense * truth[i] + rng.normal(0, 0.5)))) for i in range(80)]
    rows += [(0, "once", 1)] + [(i, "slot", 1) for i in range(10)]
    found = rater_quality(ratings(rows, slot=np.array([who == "slot" for _, who, _ in rows])))
    assert found["good"].kind == found["better"].kind == "informed" and found["good"].value > 0.7
    assert found["upside"].kind == "inverter" and found["upside"].value < 0.3
    assert found["guess"].low < 0.5 < found["guess"].high and found["guess"].kind == "guesser"
    assert found["once"].kind == "unknown" and np.isnan(found["once"].value)
    assert found["slot"].kind == "slot"


def test_annotators_of_triplets_with_what_is_known_of_them():
    rng = np.random.default_rng(0)
    position, rows = rng.normal(size=(20, 2)), []
    for who in range(6):
        for _ in range(60):
            a, b, c = rng.permutation(20)[:3]
            near = np.linalg.norm(position[a] - position[b]) < np.linalg.norm(position[a] - position[c])
            near = near if who < 4 else rng.random() < 0.5 if who == 4 else not near
            rows.append((a, *((b, c) if near else (c, b)), f"w{who}", rng.integers(2)))
    rows += [(0, 0, 1, "w0", 0), (1, 2, 1, "w4", 1)]  # a check passed, and one failed
    anchor, closer, farther, who, side = (np.array(c) for c in zip(*rows, strict=True))
    gold = np.r_[np.full(360, -1), 1, 0]
    t = Triplets(anchor, closer, farther, who, side, time=np.full(362, 2.5), gold=gold)
    (found,) = assess(Assessments("x", 20, t), minimum=0.6)
    by = {a.name: a for a in found.annotators}
    assert by["w5"].kind == "inverter" and by["w5"].quality < 0.4 and not by["w5"].kept
    assert all(by[f"w{k}"].quality > 0.7 and by[f"w{k}"].kept for k in range(4))
    assert not by["w4"].kept and by["w4"].low < 0.55 and (by["w4"].accuracy, by["w0"].accuracy) == (0, 1)
    assert by["w0"].seconds == 2.5 and 0.2 < by["w0"].left < 0.8
    assert [a.name for a in found.dropped] == ["w5", "w4"]
    shown = showing.text((found,))
    assert "below 0.6: 2 annotators" in shown and "inverters: 1" in shown


def test_what_ratings_agree_on(shared):
    (caries,) = assess(read_assessments(shared / "data" / "crowd" / "caries_xray_ratings.csv.gz"))
    (found,) = caries.agreed
    assert sum(found.prevalence) == pytest.approx(1) and found.different > 0
    sensitivity = [r.right[1] for r in found.raters]  # as Espeland and Handelman's teeth are known to give
    assert sensitivity == pytest.approx([0.40, 0.71, 0.59, 0.49, 0.91], abs=0.01)
    assert "right where 2" in showing.text((caries,))
    (enhance,) = assess(read_assessments(shared / "data" / "crowd" / "lidc_nodule_ratings.csv.gz"))
    assert enhance.agreed == ()  # slots


def test_nothing_to_assess():
    with pytest.raises(NotApplicable, match="no triplets and no ratings"):
        assess(Assessments("x", 3))


# -- real data, the command


def test_the_crowd_against_the_students(shared):
    path = shared / "data" / "crowd" / "enhance_skin_abc.csv.gz"
    read = read_assessments(path, condition="group", labels="melanoma")
    some = np.isin(read.ratings.condition, ["mturk", "2017-2018/group07", "2018-2019/group03"])
    found = compare(read.ratings.take(some), read.labels)
    assert found.reference == "mturk" and {c.unit for c in found.comparisons} <= {"images", "people"}
    asymmetry = [c for c in found.correlations if c.attribute == "asymmetry"]
    assert len(asymmetry) == 1 and asymmetry[0].value == pytest.approx(0.63, abs=0.03) and asymmetry[0].images == 100
    border = next(c for c in found.correlations if c.attribute == "border")
    assert border.low < 0 < border.high and abs(border.value) < 0.2  # as published: next to nothing
    assert any("2018-2019/group03 rated other images" in note for note in found.notes)


def table(path, t: Triplets):
    columns = ("anchor", "closer", "farther", "annotator", "condition", "gold", "time")
    rows = zip(*(getattr(t, c) for c in columns), strict=True)
    path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]), encoding="utf-8")
    return path


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("METAMED_STORE", str(tmp_path / "s.db"))
    path = table(tmp_path / "x.csv", study(np.random.default_rng(0), people=(4, 4), answers=20))
    assert call(["assess", "--dataset", str(path), "--by", "condition", "--power", "--reference", "plain",
                 "--report", str(tmp_path / "r.html"), "--plot", str(tmp_path / "p.svg")]) == 0  # fmt: skip
    shown = capsys.readouterr().out
    for words in ("Accuracy: share of right answers", "Drop-out", "Seconds", "How much another study needs", "game"):
        assert words in shown, words
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<svg" in page and "Annotators" in page and "<script" not in page
    assert (tmp_path / "p.svg").read_text(encoding="utf-8").count("<path") > 10
    path.write_text("image,rater,score\n" + "".join(f"{i},{who},{i % 3}\n" for i in range(20) for who in "ab"))
    for end in ("md", "txt", "json"):
        assert call(["assess", "--dataset", str(path), "--report", str(tmp_path / f"r.{end}"), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told[0]["kind"] == "ratings" and len(told[0]["annotators"]) == 2 and told[0]["conditions"] is None
        assert len((tmp_path / f"r.{end}").read_text(encoding="utf-8")) > 100
    assert call(["assess", "--dataset", str(path), "--by", "arm"]) == 3
    assert "no column 'arm' to compare by" in capsys.readouterr().err
    assert not (tmp_path / "s.db").exists()
    with pytest.raises(MetamedError, match="the suffix decides"):
        showing.write((), tmp_path / "r.doc")


def test_names_in_a_page_are_text(tmp_path):
    rows = [(i, who, i % 3) for who in ("<b>a", "b") for i in range(12)]
    found = assess(Assessments("<script>alert(1)</script>", 12, ratings=ratings(rows)))
    page = showing.html(found)
    assert "<script" not in page and "&lt;b&gt;a" in page


def test_annotators_judged_by_the_others_and_by_their_circles(monkeypatch):
    from metamed.crowd import embedding, sampling

    monkeypatch.setattr(sampling, "CHAINS", 1)
    monkeypatch.setattr(embedding, "ROUNDS", 0)
    rng, position = np.random.default_rng(0), np.random.default_rng(1).normal(size=(8, 2))
    rows = []
    for who in range(4):
        for _ in range(80):
            a, b, c = rng.permutation(8)[:3]
            near = np.linalg.norm(position[a] - position[b]) < np.linalg.norm(position[a] - position[c])
            near = near if who < 3 else rng.random() < 0.5
            rows.append((a, *((b, c) if near else (c, b)), f"w{who}"))
    anchor, closer, farther, who = (np.array(c) for c in zip(*rows, strict=True))
    found = assess(Assessments("x", 8, Triplets(anchor, closer, farther, who)), with_left_out=True)
    by = {a.name: a for a in found[0].annotators}
    assert all(by[f"w{k}"].left_out.low > 0.6 and by[f"w{k}"].transitivity == 1 for k in range(3))
    assert by["w3"].left_out.low < 0.5 < by["w3"].left_out.high and by["w3"].transitivity < 0.5
    assert by["w0"].left_out.answers == 80  # all others judged all images
    for shown in (showing.text(found), showing.markdown(found), showing.html(found)):
        assert "others say" in shown and "no circle" in shown
    told = {a["name"]: a for a in json.loads(showing.as_json(found))[0]["annotators"]}
    assert told["w0"]["left_out"]["value"] == by["w0"].left_out.value and told["w3"]["transitivity"] < 0.5


def test_raters_judged_by_the_others():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 60)
    rows = [(i, who, truth[i] if rng.random() < share else 1 - truth[i])
            for who, share in (("a", 0.95), ("b", 0.9), ("c", 0.9), ("guess", 0.5)) for i in range(60)]  # fmt: skip
    found = assess(Assessments("x", 60, ratings=ratings(rows)), with_left_out=True)
    by = {r.name: r for r in found[0].agreed[0].raters}
    assert by["a"].left_out.low > 0.6 and by["guess"].left_out.low < 0.5 < by["guess"].left_out.high
    assert "others say" in showing.text(found)
    plain = assess(Assessments("x", 60, ratings=ratings(rows)))
    assert plain[0].agreed[0].raters[0].left_out is None and "others say" not in showing.text(plain)
    assert json.loads(showing.as_json(plain))[0]["annotators"][0]["left_out"] is None
