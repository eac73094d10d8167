import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from metamed.dataset import Split
from metamed.records import Run, Setup, Task, content_id

scalars = st.one_of(
    st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(), st.none()
)


@given(st.dictionaries(st.text(), scalars))
def test_ids_do_not_depend_on_the_order_of_settings(values):
    backwards = dict(reversed(values.items()))
    assert Setup("m", values).id == Setup("m", backwards).id
    assert hash(Setup("m", values)) == hash(Setup("m", backwards))


def test_ids_are_stable_across_machines():
    assert content_id("a", 1, [0.5, None]) == "c53333274772c127afbff46625f4cb3f7c506db3"


def test_a_runs_results_are_not_part_of_its_id():
    run = Run("task", "setup", 0, (1, 1), {}, 0.0)
    done = replace(run, evaluations={"auc": (0.5, 0.7)}, seconds=3.0, error=None)
    assert run.id == done.id and done.score("auc") == 0.6
    assert math.isnan(run.score("auc"))
    assert replace(run, seed=1).id != run.id != replace(run, versions=(2, 1)).id


def test_a_tasks_folds_are_part_of_its_id():
    task = Task("d", "0", "classification", "target", None, "holdout", "auc", (Split((0,), (1,), (2,)),))
    assert task.id != replace(task, folds=(Split((0,), (2,), (1,)),)).id


def test_labels_say_where_a_setup_starts():
    assert Setup("resnet", {"depth": 50}).label == "resnet(depth=50) · from scratch"
    assert Setup("mobilenet", {}, "finetune", ("a",)).label == "mobilenet · finetune from a"
    assert Setup("probe.linear", {}, None, ("a", "b")).label == "probe.linear · frozen from a + b"
