"""metamed as an extension of openml: flows of metamed become setups that openml can run.

Importing this module registers it:

    import metamed.exchange.extension
    setup = openml.flows.get_flow(42, reinstantiate=True).model

It claims the flows that metamed made and `Setup`s, and nothing else, so it stands beside any other extension. Nothing
is ever pickled. The images of a task come from this machine, see `images.find_images`.
"""

from __future__ import annotations

import json
import platform
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import openml
from openml.extensions import Extension, register_extension
from openml.flows import OpenMLFlow
from openml.runs.trace import OpenMLTraceIteration
from openml.tasks import OpenMLTask

import metamed
from metamed.errors import MetamedError, NotApplicable
from metamed.exchange.client import Server
from metamed.exchange.entities import SOURCES, Flow, make_flow, settings_of, setup_from, signature
from metamed.exchange.images import find_images
from metamed.exchange.reading import Told, read_table
from metamed.exchange.retrieve import dataset_content
from metamed.exchange.runs import chances, server_measures, stored_predictions
from metamed.records import Run, Setup, Task
from metamed.store.limits import setup_string

_MINE = "metamed=="


@dataclass(frozen=True)
class SeededSetup(Setup):
    """A setup with the seed of its next run; the seed is no part of what it is."""

    seed: int = 0

    __hash__ = Setup.__hash__


class MetamedExtension(Extension):
    """What openml asks of an extension, for setups."""

    @classmethod
    def can_handle_flow(cls, flow: OpenMLFlow) -> bool:
        return (flow.external_version or "").startswith(_MINE)

    @classmethod
    def can_handle_model(cls, model: Any) -> bool:
        return isinstance(model, Setup)

    def flow_to_model(self, flow: OpenMLFlow, initialize_with_defaults: bool = False, strict_version: bool = True):
        """The setup of a flow's parameters. strict_version: refuse a flow that another version of metamed made."""
        setup = setup_from(flow.name, {} if initialize_with_defaults else flow.parameters)
        here = _flow_of(setup).version
        if strict_version and here != flow.external_version:
            raise MetamedError(f"{flow.name}: of {flow.external_version}, here is {here}. Pass strict_version=False")
        return setup

    def model_to_flow(self, model: Setup) -> OpenMLFlow:
        flow = _flow_of(model)
        about = {k: {"data_type": kind, "description": may_be} for k, (kind, _, may_be) in flow.parameters.items()}
        return OpenMLFlow(
            name=flow.name, description=flow.description, model=model, components=OrderedDict(),
            parameters=OrderedDict((k, v[1]) for k, v in flow.parameters.items()),
            parameters_meta_info=OrderedDict(about), external_version=flow.version, tags=["metamed"],
            language="English", dependencies="metamed", extension=self)  # fmt: skip

    def get_version_information(self) -> list[str]:
        """The second of them becomes a tag of each run."""
        return [f"Python_{platform.python_version()}.", f"metamed_{metamed.__version__}"]

    def create_setup_string(self, model: Setup) -> str:
        return setup_string(model)

    def is_estimator(self, model: Any) -> bool:
        return isinstance(model, Setup)

    def seed_model(self, model: Setup, seed: int | None) -> SeededSetup:
        kept = getattr(model, "seed", 0) if seed is None else seed
        return SeededSetup(model.method, model.hyperparameters, model.recipe, model.sources, kept)

    def obtain_parameter_values(self, flow: OpenMLFlow, model: Setup | None = None) -> list[dict[str, Any]]:
        values = settings_of(model or flow.model)
        return [{"oml:name": k, "oml:value": v, "oml:component": flow.flow_id} for k, v in values.items()]

    def check_if_model_fitted(self, model: Any) -> bool:
        """A setup holds no weights."""
        return False

    def instantiate_model_from_hpo_class(self, model: Setup, trace_iteration: OpenMLTraceIteration) -> Setup:
        """The setup that was tried in one iteration of a search."""
        told = trace_iteration.get_parameters()
        if not trace_iteration.setup_string:  # not from a server: values are still JSON, as in the ARFF file
            told = {k: json.loads(v) for k, v in told.items() if v is not None}
        tried = Setup(told.pop("method", model.method), {}, told.pop("recipe", model.recipe))
        own = {k: v for k, v in settings_of(model).items() if k in signature(tried)[0] or k == SOURCES}
        return setup_from(_flow_of(tried).name, own | {k: json.dumps(v) for k, v in told.items() if v is not None})

    def _run_model_on_fold(self, model, task: OpenMLTask, X_train, rep_no: int, fold_no: int, y_train=None,
                           X_test=None):  # fmt: skip
        """Run a setup on one fold: (predicted classes, probabilities, measures, no trace)."""
        from metamed.experiments import make_job, perform
        from metamed.store import Store

        own = _own_task(task)
        part = _fold_for(own, task, rep_no, fold_no)
        job = make_job(Setup(model.method, model.hyperparameters, model.recipe, model.sources), part,
                       find_images(own.facts), Store.united(), seed=getattr(model, "seed", 0))  # fmt: skip
        result = perform(job)
        if result.run.error:
            raise MetamedError(f"{model.label} failed: {result.run.error}")
        _, tested = task.get_train_test_split_indices(repeat=rep_no, fold=fold_no)
        probabilities = _probabilities(result.artifacts["predictions.npz"], own, tested, len(task.class_labels))
        labels = np.array(task.class_labels, dtype=object)[probabilities.argmax(axis=1)]
        return labels, probabilities, _measures(result.run, len(task.class_labels)), None


def _flow_of(setup: Setup) -> Flow:
    from metamed import training
    from metamed.methods import get_method

    names = [name for name in (setup.method, setup.recipe) if name]
    return make_flow(setup, (*(get_method(n).version for n in names), training.VERSION), metamed.__version__)


def _probabilities(predictions: bytes, own: Told, rows: np.ndarray, n_classes: int) -> np.ndarray:
    """Of the one fold that was run, for these rows of its table (n, K)."""
    ((samples, values),) = stored_predictions(predictions)
    line = {sample: k for k, sample in enumerate(samples.tolist())}
    places = [None] * len(rows) if own.places is None else own.places[rows, None]
    return np.concatenate([chances(values[line[sample]], place, n_classes)
                           for sample, place in zip(own.samples[rows].tolist(), places, strict=True)])  # fmt: skip


def _own_task(task: OpenMLTask) -> Told:
    """What a table that metamed published tells."""
    found = _read_dataset(openml.config.server, task.dataset_id)
    if found is None:
        raise NotApplicable(f"task {task.task_id}: its rows are no images that metamed published (run metamed publish)")
    return found


@lru_cache(maxsize=4)
def _read_dataset(server: str, number: int) -> Told | None:
    return read_table(dataset_content(Server(server), number))


def _fold_for(own: Told, task: OpenMLTask, repeat: int, fold: int) -> Task:
    """The task with that one fold, its validation part included."""
    _, tested = task.get_train_test_split_indices(repeat=repeat, fold=fold)
    samples = set(own.samples[tested].tolist())
    for split in own.task.folds:
        if set(split.test) == samples:
            return replace(own.task, folds=(split,))
    raise NotApplicable(f"task {task.task_id} divides {own.task.dataset} otherwise than the procedure "
                        f"'{own.task.procedure}', for which its table was made")  # fmt: skip


def _measures(run: Run, n_classes: int) -> OrderedDict[str, float]:
    return OrderedDict((name, of[0]) for name, of in server_measures(run, n_classes).items())


def register() -> None:
    """Make openml know this extension, once."""
    if not any(known.__name__ == MetamedExtension.__name__ for known in openml.extensions.extensions):
        register_extension(MetamedExtension)


register()
