"""The suites: datasets x setups x seeds, as literals. Run one with `python -m benchmarks.run NAME --store FILE`."""

from metamed.experiments import Suite
from metamed.records import Setup

IMAGENET = "imagenet.coral.mobilenet_v2"
BIRDS = "inatbird.coral.mobilenet_v2"
INSECTS = "inatinsect.coral.mobilenet_v2"

CLASSIFICATION = (
    "dr_fundus_rahim", "ham10000_derm", "busi_breast_us", "brain_tumor_mri", "bccd_cells", "pneumoniamnist",
    "covid_xray3", "lc25000_lung", "wbc_zheng", "ph2_derm", "mednist",
    "cifar10_sub", "dtd10_textures", "flowers5", "sign_digits", "omniglot_alphabets", "sklearn_digits",
)  # fmt: skip

# Datasets that share images or patients with others, here or in published tables: one family each, left out together.
FAMILIES = {
    "busi_breast_us": "busi",
    "pneumoniamnist": "kermany_cxr",
    "ham10000_derm": "isic",
    "ph2_derm": "ph2",
    "wbc_zheng": "zheng_wbc",
}

# What a researcher would try first on a few hundred images: probes, networks from scratch, and three recipes from
# natural sources that differ in what they saw. Cheap ones first: an interrupted suite then leaves balanced evidence.
FIRST = (
    Setup("probe.linear", {}, None, (IMAGENET,)),
    Setup("probe.linear", {}, None, (BIRDS,)),
    Setup("probe.linear", {}, None, (INSECTS,)),
    Setup("probe.linear", {}, None, (IMAGENET, BIRDS, INSECTS)),
    Setup("probe.linear", {"c": 1.0}, None, (IMAGENET,)),
    Setup("probe.knn", {}, None, (IMAGENET,)),
    Setup("small_cnn"),
    Setup("mobilenet", {"unfrozen": 4}, "freeze", (IMAGENET,)),
    Setup("mobilenet", {"learning_rate": 0.003}, "finetune", (IMAGENET,)),
    Setup("resnet"),
    Setup("mobilenet", {"learning_rate": 0.003}, "finetune", (BIRDS,)),
    Setup("mobilenet", {"learning_rate": 0.003}),
    Setup("mobilenet", {"learning_rate": 0.003}, "finetune", (INSECTS,)),
    Setup("mobilenet", {"unfrozen": 4}, "freeze", (BIRDS,)),
    Setup("mobilenet", {"encoder_factor": 0.1, "learning_rate": 0.003}, "finetune", (IMAGENET,)),
    Setup("small_cnn", {"augment": "none", "width": 64}),
)  # fmt: skip

SHIPPED = (IMAGENET, BIRDS, INSECTS)
SIZES, SPLITS = (50, 100, 200, 400, None), (0, 1, 2)  # labelled images, training and validation together; None: all
PROBES = tuple(Setup(probe, {}, None, (source,)) for probe in ("probe.linear", "probe.knn") for source in SHIPPED)

SUITES = {
    # One grouped holdout per dataset, 64 px or the dataset's own size if smaller, up to 600 labelled images.
    "first": Suite("first", CLASSIFICATION, FIRST, seeds=(0, 1), sizes=(600,), procedure="holdout"),
    # Probes do not depend on their seed: each of their runs has a split of its own.
    "probes": Suite("probes", CLASSIFICATION, PROBES, sizes=SIZES, splits=SPLITS, procedure="holdout"),
}
