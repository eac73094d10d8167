"""Sources: where their weights lie, what their frozen networks say of images, and how a run becomes one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from metamed import training
from metamed.dataset import Dataset, Images
from metamed.errors import MetamedError
from metamed.methods import Shape, get_method
from metamed.records import Run, Source
from metamed.store import Store
from metamed.store.artifacts import write_file

BATCH_CPU, BATCH_GPU = 16, 256  # images through a frozen network at once: what stays in a processor's cache is twice
# as fast (2.6 against 1.2 ms an image of 64 x 64 pixels, MobileNetV2 on one core)


def batch_on(device) -> int:
    """How many images a frozen network takes at once on a torch device."""
    return BATCH_CPU if device.type == "cpu" else BATCH_GPU


def find_weights(source: Source, store: Store, *, download: bool = False) -> Path:
    """The file of a source: trained here (in the store), made of a seed, shipped with a checkout, or torchvision's own.

    Looks in the store, in $METAMED_WEIGHTS, in benchmarks/weights of a checkout, and in torchvision's cache; fetches
    torchvision's weights only if `download`. Raises MetamedError that says where the file was looked for.
    """
    if source.origin.startswith("train:"):
        return store.artifact(source.origin.removeprefix("train:"), "weights.safetensors")
    if source.origin == "torchvision":
        return _torchvision_weights(source, download)
    if source.origin.startswith("random:"):
        return _random_weights(source.network, int(source.origin.removeprefix("random:")))
    folders = _weight_folders()
    for path in (p for folder in folders for p in sorted(folder.glob("*.safetensors"))):
        if training.sha256(path) == source.sha256:
            return path
    where = ", ".join(map(str, folders)) or "no folder"
    raise MetamedError(f"weights of '{source.name}' not found (looked in {where}). Set METAMED_WEIGHTS to their folder")


def _weight_folders() -> list[Path]:
    checkout = Path(__file__).parent.parent / "benchmarks" / "weights"
    named = [Path(os.environ["METAMED_WEIGHTS"])] if os.environ.get("METAMED_WEIGHTS") else []
    return [folder for folder in (*named, checkout, Path("benchmarks/weights")) if folder.is_dir()]


def _torchvision_weights(source: Source, download: bool) -> Path:
    """torchvision's own file, in torch's cache; its name ends in the first 8 digits of its sha256."""
    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if found := sorted(folder.glob(f"*-{source.sha256[:8]}*.pth")):
        return found[0]
    url = _torchvision_url(source)
    if not download:
        raise MetamedError(f"weights of '{source.name}' are not in {folder}. --download fetches {url}")
    path = folder / url.rsplit("/", 1)[1]
    folder.mkdir(parents=True, exist_ok=True)
    try:  # the file is kept only if its hash begins with these digits; nothing in it is executed, then or later
        torch.hub.download_url_to_file(url, str(path), source.sha256, progress=False)
    except (OSError, RuntimeError) as error:
        raise MetamedError(f"{url}: {error}") from None
    return path


def _torchvision_url(source: Source) -> str:
    """Where torchvision publishes the weights with a source's hash."""
    from torchvision.models import get_model_weights

    urls = [weights.url for weights in get_model_weights(source.network)]
    if found := [url for url in urls if f"-{source.sha256[:8]}" in url]:
        return found[0]
    raise MetamedError(f"torchvision has no {source.network} with the weights of '{source.name}' ({source.sha256[:8]})")


def random_source(network: str, seed: int) -> Source:
    """A network that learned nothing, as a control of what a source's weights are worth."""
    digest = training.sha256(_random_weights(network, seed))
    return Source(f"random{seed}.{network}", network, "none", (), "own", digest, "", f"random:{seed}")


def _random_weights(network: str, seed: int) -> Path:
    """The file of an untrained network, made when it is missing; pixels are scaled as those of natural photographs."""
    path = Path(tempfile.gettempdir()) / f"metamed-{network}-{seed}.safetensors"
    if not path.exists():
        from metamed.flows.blocks import Classifier, encoder

        training.seed_everything(seed)
        net = encoder(Shape(3, (64, 64), 2), network)
        mean, sd, _ = training.PREPROCESSING["imagenet"]
        write_file(path, training.weights_bytes(training.Model(Classifier(net, 2), mean, sd)))
    return path


def load_source(encoder, source: Source, path: Path):
    """Put a source's weights into an encoder of the same architecture; its pixel mean and sd."""
    if encoder.name != source.network:
        raise MetamedError(f"source '{source.name}' holds a {source.network}, which does not fit {encoder.name}")
    if not training.sha256(path).startswith(source.sha256):
        raise MetamedError(f"{path.name}: not the weights of '{source.name}' (its sha256 differs)")
    state = training.read_weights(path)
    mean, sd, same = training.preprocessing_of(source.preprocessing, state)
    training.load_encoder(encoder, state, name=source.name)
    if same:
        training.pad_as_tensorflow(encoder)
    return mean, sd


def features_key(source: Source, image_size: int) -> str:
    """Under which name the store keeps a source's frozen features: weights and resolution decide them."""
    return f"{source.name}-{source.sha256[:12]}-{image_size}" + ("" if _in_half(source) else "-single")


def _in_half(source: Source) -> bool:
    """Are its features kept in half precision? An untrained MobileNetV2's are 1e-10, and half would be 0."""
    return source.objective != "none"


def encode(dataset: Dataset, source: Source, path: Path, image_size: int, device: str = "auto") -> np.ndarray:
    """Frozen features of every image (n, n_features), from a source's encoder: float16, of untrained ones float32."""
    model = frozen(source, path, dataset.images.shape[1], image_size, device)
    return _features(model, dataset.images, image_size)


def features_of(
    dataset: Dataset, sources: Sequence[Source], weights: Sequence[Path], image_size: int,
    known: Mapping[str, np.ndarray], device: str = "auto",
) -> tuple[np.ndarray, dict[str, np.ndarray]]:  # fmt: skip
    """(frozen features of every image by all sources side by side, float32 (n, D); those not known before)."""
    new = {}
    for source, path in zip(sources, weights, strict=True):
        key = features_key(source, image_size)
        if key not in known:
            new[key] = encode(dataset, source, path, image_size, device)
    parts = [{**known, **new}[features_key(source, image_size)] for source in sources]
    return np.concatenate(parts, axis=1).astype(np.float32), new


def embedder(
    source: str = "imagenet.coral.mobilenet_v2", store: Store | None = None, *, image_size: int = 96,
    device: str = "auto", download: bool = False,
) -> Callable[[Images], np.ndarray]:  # fmt: skip
    """A frozen source as a function of images, float16 (n, n_features): what deep meta-features are computed from.

    image_size: side that every image is brought to, the same for all datasets, so that they compare. The network is
    loaded once for each number of channels. Raises MetamedError where the source's weights are not found.
    """
    store = Store.united() if store is None else store
    chosen = store.source(source)
    path, models = find_weights(chosen, store, download=download), {}

    def embed(images: Images) -> np.ndarray:
        channels = images.shape[1]
        if channels not in models:
            models[channels] = frozen(chosen, path, channels, image_size, device)
        return _features(models[channels], images, image_size)

    return embed


def frozen(source: Source, path: Path, channels: int, image_size: int, device: str) -> training.Frozen:
    """A source's encoder for images of so many channels and pixels per side."""
    from metamed.flows.blocks import encoder as build

    encoder = build(Shape(3 if channels == 1 else channels, (image_size, image_size), 0), source.network)
    mean, sd = load_source(encoder, source, path)
    import torch

    model = training.Frozen(encoder, mean, sd, half=_in_half(source))
    return model.to(training.pick_device(device), memory_format=torch.channels_last)


def _features(model, images: Images, image_size: int) -> np.ndarray:
    batch, dtype = batch_on(model.mean.device), np.float16 if model.half_precision else np.float32
    parts = [
        training.logits_of(model, training.load_images(images, block, image_size), batch).astype(dtype)
        for block in np.array_split(np.arange(len(images)), max(1, len(images) // 2000))
    ]
    return np.concatenate(parts)


def as_source(run: Run, name: str, store: Store) -> Source:
    """Make a source of a run whose weights were kept: other datasets can then start from its network.

    Its corpus is the run's dataset (and the family of that), then what the run's own sources had learned from.
    """
    setup, task = store.get(run.setup), store.get(run.task)
    path = store.artifact(run, "weights.safetensors")
    own = {k: v for k, v in setup.hyperparameters.items() if k in get_method(setup.method).space}
    facts = store.dataset(task.digest)
    side = setup.hyperparameters.get("image_size", training.DEFAULTS["image_size"])
    side = side if setup.sources else min(side, max(facts.height, facts.width))  # as it was trained
    built = get_method(setup.method).build(Shape(3, (side, side), 2), **own)
    if not hasattr(built, "encoder"):
        raise MetamedError(f"{setup.method} has no encoder of its own that others could start from: it makes no source")
    network = built.encoder.name
    parents = [store.source(parent) for parent in setup.sources]
    corpus = dict.fromkeys((task.dataset, facts.family, *(learned for p in parents for learned in p.corpus)))
    padded = any(training.PREPROCESSING[p.preprocessing][2] for p in parents)  # its convolutions learned to pad so
    sha256, licence, origin = training.sha256(path), facts.card.license, f"train:{run.id}"
    preprocessing = "own_same" if padded else "own"
    objective = "triplets" if task.kind == "similarity" else "supervised"
    source = Source(name, network, objective, tuple(corpus), preprocessing, sha256, licence, origin)
    store.add(source)
    return source
