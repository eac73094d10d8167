"""What can be run, as data: a method is one decorated function whose signature is its flow and its search space."""

from __future__ import annotations

import inspect
import json
import math
import pkgutil
import random
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from importlib.resources import files
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from metamed.dataset import Kind
from metamed.errors import MetamedError, UnknownName
from metamed.records import Scalar, Setup


@dataclass(frozen=True)
class Float:
    """A real interval, searched on a logarithmic scale if `log`."""

    low: float
    high: float
    log: bool = False

    def sample(self, rng: random.Random) -> float:
        if self.log:
            return math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return rng.uniform(self.low, self.high)

    def __contains__(self, value) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and self.low <= value <= self.high


@dataclass(frozen=True)
class Int:
    """Whole numbers from low to high, both included."""

    low: int
    high: int

    def sample(self, rng: random.Random) -> int:
        return rng.randint(self.low, self.high)

    def __contains__(self, value) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high


@dataclass(frozen=True, init=False)
class Choice:
    """One of the given values."""

    options: tuple[Scalar, ...]

    def __init__(self, *options: Scalar):
        object.__setattr__(self, "options", options)

    def sample(self, rng: random.Random) -> Scalar:
        return rng.choice(self.options)

    def __contains__(self, value) -> bool:
        return any(value == option and type(value) is type(option) for option in self.options)


Domain = Float | Int | Choice


@dataclass(frozen=True)
class Shape:
    """What a network has to fit: input channels, (height, width) in pixels, classes. Feature vectors have size ()."""

    channels: int
    size: tuple[int, ...]
    n_classes: int


@dataclass(frozen=True)
class Method:
    """A registered method or (kind "transfer") recipe; made by @method, never by hand."""

    name: str
    kind: Kind | Literal["transfer"]
    build: Callable[..., Any] | None  # None where only its description was read, without importing torch
    space: dict[str, Domain]
    defaults: dict[str, Scalar]
    description: str
    version: int
    partner: bool = False  # a recipe that also learns from the images of its first source
    several: bool = False  # a recipe for several sources, one network each
    estimator: bool = False  # fitted on features in one go: it knows no epochs and no learning rate
    assessed: bool = False  # it also learns from what people said of the images: triplets or ratings


METHODS: dict[str, Method] = {}


def parameters(function: Callable) -> tuple[dict[str, Domain], dict[str, Scalar]]:
    """Search space and defaults of a signature: its keywords, each `Annotated[type, Domain] = default`."""
    space, defaults = {}, {}
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        hint = hints.get(name)
        domain = get_args(hint)[1] if get_origin(hint) is Annotated else None
        if not isinstance(domain, Domain) or parameter.default not in domain:
            raise TypeError(f"{function.__qualname__}: {name} needs Annotated[type, domain] and a default inside it")
        space[name], defaults[name] = domain, parameter.default
    return space, defaults


def method(kind: Kind | Literal["transfer"], *, version: int, name: str | None = None, **traits: bool):
    """Register a build function (contracts in docs/architecture.md §5). Raise `version` when its output changes.

    traits: `partner`, `several` and `assessed` of `Method`.
    """

    def register(function):
        key = name or function.__name__
        if key in METHODS and METHODS[key].build is not function:
            raise TypeError(f"method {key!r} is registered twice")
        space, defaults = parameters(function)
        description = (inspect.getdoc(function) or "").strip()
        METHODS[key] = Method(key, kind, function, space, defaults, description, version, **traits)
        return function

    return register


def methods(kind: str | None = None) -> dict[str, Method]:
    """All methods of a kind, from `metamed.flows` and the entry points of that name (imports torch)."""
    import metamed.flows

    for module in pkgutil.walk_packages(metamed.flows.__path__, "metamed.flows."):
        import_module(module.name)
    for entry in entry_points(group="metamed.flows"):
        entry.load()
    return {name: m for name, m in sorted(METHODS.items()) if kind in (None, m.kind)}


def get_method(name: str) -> Method:
    """A method that can be built, by name (imports torch)."""
    known = METHODS if name in METHODS else methods()
    if name not in known:
        raise UnknownName("method", name, known)
    return known[name]


def described(kind: str | None = None) -> dict[str, Method]:
    """The methods that ship, without `build`, read from data/methods.json: for whatever must not import torch."""
    text = files("metamed").joinpath("data/methods.json").read_text(encoding="utf-8")
    return {name: _from_json(name, m) for name, m in json.loads(text).items() if kind in (None, m["kind"])}


def describe() -> str:
    """The text of data/methods.json, from the registry."""
    shipped = {n: m for n, m in methods().items() if m.build.__module__.startswith("metamed.flows.")}
    return json.dumps({name: _to_json(m) for name, m in shipped.items()}, indent=1) + "\n"


_TOLD = ("estimator", "assessed")  # traits that those have to know who import no torch


def _to_json(m: Method) -> dict:
    space = {k: {"domain": type(d).__name__, **vars(d)} for k, d in m.space.items()}
    found = {"kind": m.kind, "version": m.version, "description": m.description, "space": space, "defaults": m.defaults}
    return found | {trait: True for trait in _TOLD if getattr(m, trait)}


def _from_json(name: str, m: dict) -> Method:
    domains = {"Float": Float, "Int": Int, "Choice": lambda options: Choice(*options)}
    space = {k: domains[d["domain"]](**{f: v for f, v in d.items() if f != "domain"}) for k, d in m["space"].items()}
    traits = {trait: m.get(trait, False) for trait in _TOLD}
    return Method(name, m["kind"], None, space, m["defaults"], m["description"], m["version"], **traits)


def sample_setups(m: Method | str, n: int, *, seed: int = 0) -> list[Setup]:
    """`n` setups with hyperparameters drawn from the method's space, each independently and reproducibly."""
    m = get_method(m) if isinstance(m, str) else m
    rng = random.Random(seed)
    return [Setup(m.name, {k: d.sample(rng) for k, d in m.space.items()}) for _ in range(n)]


def checked(setup: Setup, extra: dict[str, Domain], defaults: dict[str, Scalar]) -> Setup:
    """The setup with known names, values inside their domains, and values that equal a default left out.

    extra, defaults: what training adds to the method's and the recipe's own parameters.
    """
    parts = [get_method(name) for name in (setup.method, setup.recipe) if name]
    space = {k: d for part in parts for k, d in part.space.items()} | extra
    defaults = {k: v for part in parts for k, v in part.defaults.items()} | defaults
    for name, value in setup.hyperparameters.items():
        if name not in space:
            raise UnknownName(f"hyperparameter of {setup.method}", name, space)
        if value not in space[name]:
            raise MetamedError(f"{setup.method}: {name}={value!r} is outside {space[name]}")
    kept = {k: v for k, v in sorted(setup.hyperparameters.items()) if v != defaults[k]}
    return Setup(setup.method, kept, setup.recipe, tuple(setup.sources))


@dataclass(frozen=True)
class WarmUp:
    """What a network goes through on unlabelled images of the target before it learns from labels.

    objective: a module that takes images B x C x s x s, scaled as the source's were, and answers with a loss that all
    its parameters then lower at `factor` times the learning rate, or with None where to see the images is enough.
    """

    objective: Any
    epochs: int = 1
    factor: float = 1.0


@dataclass(frozen=True)
class Partner:
    """A source whose images are learned beside the target's: `weight` times its loss is added in every step.

    module: number of classes -> a network for the source's classes that shares parts with the plan's module.
    """

    source: str
    module: Callable[[int], Any]
    weight: float = 1.0


# Which answers of people are believed: parameters of every method that learns from assessments.
Learns = Annotated[str, Choice("any", "triplets", "ratings")]
Keep = Annotated[str, Choice("all", "quality", "labels")]
Quality = Annotated[float, Float(0.0, 1.0)]


@dataclass(frozen=True)
class Believed:
    """Which answers of people a method learns from, and how much each counts.

    learns: triplets or ratings; any: triplets where the dataset has them. keep: all answers; quality: those whose
    annotators (or, where annotators do not persist, the answers themselves) agree with the others at `minimum` or more
    (0.5 is chance), each weighed by what lies above chance; labels: triplets that do not contradict experts' labels.
    """

    learns: str = "any"
    keep: str = "all"
    minimum: float = 0.5


@dataclass(frozen=True)
class Assessed:
    """People's assessments of the target's images, learned before the labels, beside them, or both.

    embed: a module images -> B x E in which triplets are compared. rate: number of attributes -> a module images ->
    B x A that estimates them. Both share parts with the plan's module. weight: of their loss in every step beside the
    labels'. epochs: passes over the assessed images before the labels, at `factor` times the learning rate.
    """

    embed: Any
    rate: Callable[[int], Any]
    believed: Believed = Believed()
    weight: float = 0.0
    epochs: int = 0
    factor: float = 1.0


@dataclass(frozen=True)
class Plan:
    """What a recipe hands to training.

    groups: (parameters, learning-rate factor, first epoch in which they learn); what is in no group stays frozen.
    warm_up: what comes before. partner: what is learned beside. assessed: what people said, before or beside.
    """

    module: Any
    groups: tuple[tuple[list, float, int], ...]
    warm_up: WarmUp | None = None
    partner: Partner | None = None
    assessed: Assessed | None = None
