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
    "wbc_tecom": "zheng_wbc",
    "wbc_cellavision": "zheng_wbc",
    "isic2018_task1_lesions": "isic",
    "musk1": "musk",  # 72 molecules are in both
    "musk2": "musk",
    "elephant": "corel_regions",
    "fox": "corel_regions",
    "tiger": "corel_regions",
    "corel_dogs": "corel",
    "corel_african": "corel",
    "birds_brown_creeper": "birds",
    "birds_winter_wren": "birds",
    "mutagenesis1": "mutagenesis",
    "mutagenesis2": "mutagenesis",
    "ucsb_breast_features": "ucsb_breast",
    "ucsb_breast_image_bags": "ucsb_breast",
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
FEW_SIZES = (50, 200, None)
COMPACT = tuple(  # a third of all images: features of many sources are affordable
    d for d in CLASSIFICATION if d not in ("brain_tumor_mri", "pneumoniamnist", "mednist", "cifar10_sub",
                                           "omniglot_alphabets", "sklearn_digits")
)  # fmt: skip


def probes(sources: tuple[str, ...], *methods: str, **settings) -> tuple[Setup, ...]:
    """Every probe on the frozen features of every source."""
    return tuple(Setup(m, settings, None, (source,)) for m in methods or ("probe.linear",) for source in sources)


# ---- sources of our own: every dataset, learned from scratch by a small network or from ImageNet by a larger one

FROM_SCRATCH = Setup("small_cnn", {"image_size": 32})  # a quarter of the time of 64 pixels: many sources on all targets
ON_IMAGENET = Setup("mobilenet", {"epochs": 6, "learning_rate": 0.003}, "finetune", (IMAGENET,))
LEARNED = 600  # images that a source learns from, where it has as many: sources differ in what they show, not in size
RANDOM = (("small_cnn_32x3", 0), ("small_cnn_32x3", 1), ("mobilenet_v2", 0), ("mobilenet_v2", 1))  # learned nothing
RANDOM_SMALL, RANDOM_MOBILE = (tuple(f"random{seed}.{n}" for n, seed in RANDOM[i : i + 2]) for i in (0, 2))


def made(dataset: str, method: str, size: int | None = LEARNED) -> str:
    """The name of the source that a method makes of a dataset."""
    return f"{dataset}.{method}" + ("" if size == LEARNED else f".n{size or 'all'}")


def learners(name: str, datasets: tuple[str, ...], *setups: Setup, sizes: tuple[int | None, ...] = (LEARNED,)) -> Suite:
    """Runs whose weights are kept as sources."""
    return Suite(name, datasets, setups, seeds=(2,), sizes=sizes, procedure="holdout", keep_weights=True)


IN_TURN = (  # medical and natural ones in turn, so that an interrupted suite has sources of both kinds
    "ham10000_derm", "cifar10_sub", "busi_breast_us", "flowers5", "brain_tumor_mri", "dtd10_textures", "bccd_cells",
    "omniglot_alphabets", "covid_xray3", "sign_digits", "lc25000_lung", "sklearn_digits", "pneumoniamnist", "wbc_zheng",
    "dr_fundus_rahim", "ph2_derm", "mednist",
)  # fmt: skip
SMALL = tuple(made(d, "small_cnn") for d in IN_TURN)
CHAINED = tuple(made(d, "mobilenet") for d in IN_TURN)

# ---- variants of sources

SHUFFLED = tuple(f"{d}.shuffled" for d in ("ham10000_derm", "lc25000_lung", "flowers5", "cifar10_sub"))
GREY = tuple(f"{d}.grey" for d in ("ham10000_derm", "lc25000_lung", "bccd_cells", "flowers5", "cifar10_sub"))
RESIZED = ("brain_tumor_mri", "mednist", "lc25000_lung", "cifar10_sub", "flowers5")
MANY_CLASSES = ("cifar10_sub", "sign_digits", "mednist")
FEWER = tuple(f"{d}{kept}" for d in MANY_CLASSES for kept in ("", ".five", ".two"))  # all from 300 images
VARIED = (
    *(made(d, "small_cnn") for d in (*SHUFFLED, *GREY)),
    *(made(d, "small_cnn", size) for size in (50, 150, None) for d in RESIZED),
    *(made(d, "small_cnn", 300) for d in FEWER),
)


CONFUSED = tuple(made(d, "mobilenet") for d in SHUFFLED)  # from ImageNet on, by labels that mean nothing

# ---- what a user would train: recipes at sizes where two cores manage them

TRAINED = (
    Setup("mobilenet", {"learning_rate": 0.003}, "finetune", (IMAGENET,)),
    Setup("small_cnn"),
    Setup("mobilenet", {"unfrozen": 4}, "freeze", (IMAGENET,)),
    Setup("mobilenet", {"learning_rate": 0.003}),
    Setup("mobilenet", {"learning_rate": 0.003}, "finetune", (BIRDS,)),
)
UNTUNED = probes((*RANDOM_SMALL, *SMALL[::-1]), image_size=32)
SCALED = (
    probes((*RANDOM_MOBILE[:1], *CHAINED), scaling="all"),
    probes((*RANDOM_SMALL, *SMALL), image_size=32, scaling="all"),
)
RATE = {"learning_rate": 0.003}
RECIPES = tuple(
    Setup("mobilenet", RATE, recipe, (IMAGENET,)) for recipe in ("discriminative", "gradual", "batchnorm", "simsiam")
) + (Setup("mobilenet", RATE, "cotraining", (made("flowers5", "mobilenet"),)),)
NETWORKS = (
    Setup("mobilenet_v3_small"),
    Setup("vit"),
    Setup("efficientnet_b0"),
    Setup("resnet", {"depth": 50}),
    Setup("densenet121"),
    Setup("convnext_tiny"),
)
# Which source falls for a mark that goes with a class? Untuned probes, and networks that learn all of their weights.
UNPROVEN = (
    *probes((IMAGENET, RANDOM_MOBILE[0]), scaling="all"),
    Setup("mobilenet", RATE, "finetune", (IMAGENET,)),
    Setup("mobilenet", RATE),
    *probes((BIRDS, INSECTS), scaling="all"),
    Setup("small_cnn"),
    Setup("mobilenet", RATE, "finetune", (BIRDS,)),
)
TURNED = probes((*RANDOM_MOBILE[:1], *CHAINED, *RANDOM_MOBILE[1:]))
TUNED = tuple(Setup("mobilenet", {"learning_rate": 0.003}, "finetune", (source,)) for source in CHAINED)


# ---- bags

SMALL_BAGS = ("musk1", "mutagenesis2", "elephant", "fox", "tiger", "ucsb_breast_features", "musk2")
LARGE_BAGS = ("mutagenesis1", "birds_brown_creeper", "birds_winter_wren")
WIDE_BAGS = ("web_recommendation_1",)  # 5863 features: a linear machine that is trained 200 times takes half an hour
MOST_BAGS = ("corel_dogs", "corel_african")  # 2000 each
NUCLEI = ("colon_cancer_nuclei_bags",)
TISSUE = ("ucsb_breast_image_bags",)  # five groups, one of them most of it: only holdouts can leave groups out
LITERATURE = ("musk1", "musk2", "elephant", "fox", "tiger")  # where everybody has figures
RBF = {"kernel": "rbf", "c": 1.0}
CLASSICS = (
    ("single_instance", {}), ("bag_statistics", {}), ("bag_statistics", {"statistic": "extremes"}),
    ("single_instance", {"pooling": "max"}), ("citation_knn", {}), ("miles", {}), ("mi_graph", {}),
    ("mi_graph", {"cliques": False}), ("bag_of_words", {}), ("single_instance", {"pooling": "lse"}),
    ("mi_svm_bags", {}), ("mi_svm", {}), ("em_dd", {}), ("mi_svm_bags", RBF), ("mi_svm", RBF),
)  # fmt: skip
BAG_NETWORKS = (
    ("attention", {}), ("embedding_net", {}), ("instance_net", {}), ("attention", {"gated": True}),
    ("embedding_net", {"pooling": "max"}), ("dsmil", {}), ("clam", {}), ("deep_sets", {}),
    ("instance_net", {"pooling": "lse"}), ("transmil", {}),
)  # fmt: skip


def bag_setups(*variants: tuple[str, dict], sources: tuple[str, ...] = ()) -> tuple[Setup, ...]:
    """The variants on features as they are, or on a source's frozen features of images."""
    return tuple(Setup(method, settings, None, sources) for method, settings in variants)


_IN_TURN = (*BAG_NETWORKS[:2], *CLASSICS[:12], *BAG_NETWORKS[2:-1], *CLASSICS[12:], BAG_NETWORKS[-1])
VARIANTS, ON_IMAGES = bag_setups(*_IN_TURN), bag_setups(*_IN_TURN, sources=(IMAGENET,))
NARROW = tuple(Setup(m) for m in ("mi_svm", "mi_svm_bags"))
OTHER_EYES = tuple(  # the same variants on what other sources see, and on a network of their own
    s for v in (("single_instance", {}), ("attention", {}), ("mi_graph", {}), ("dsmil", {}))
    for source in (BIRDS, INSECTS) for s in bag_setups(v, sources=(source,))
) + tuple(
    Setup(method, {"epochs": 15, "image_size": 32, "learning_rate": 0.003, "network": "small_cnn_16x2"})
    for method in ("attention", "instance_net")
)  # fmt: skip


# ---- masks

SEGMENTED = (
    "acdc_cardiac_mri_slices", "dsb2018_nuclei", "fhpsaop_fetal_head_us", "isbi2012_em_membranes",
    "isic2018_task1_lesions", "kvasir_seg_polyps", "msd_hippocampus_slices", "usgra_nerve_vessel_us",
    "wbc_cellavision", "wbc_tecom",
)  # fmt: skip
SCRATCH = {"epochs": 20, "learning_rate": 0.003}
TUNE = {"epochs": 12, "learning_rate": 0.003}
CHEAP_SEGMENTERS = (
    Setup("otsu_position"),
    Setup("pixel_forest"),
    Setup("unet_encoder", {"decoder_width": 8} | SCRATCH, "freeze", (IMAGENET,)),
    Setup("unet", {"width": 8} | SCRATCH),
)
SEGMENTERS = (
    *CHEAP_SEGMENTERS,
    Setup("segmenter", SCRATCH),
    Setup("lraspp", TUNE, "finetune", (IMAGENET,)),
    Setup("unet", {"view": "patch"} | SCRATCH),
    Setup("unet_encoder", {"decoder_width": 8} | TUNE, "finetune", (IMAGENET,)),
    Setup("unet", SCRATCH),
    Setup("unetplusplus", {"width": 8} | SCRATCH),
    Setup("fcn", TUNE | {"epochs": 8}, "finetune", (IMAGENET,)),
    Setup("deeplabv3", TUNE | {"epochs": 8}, "finetune", (IMAGENET,)),
)
SEEDED = tuple(SEGMENTERS[i] for i in (2, 8, 3, 1, 4, 7, 5, 6, 9, 10, 11))  # all that draw numbers, the best first
OTHER_ENCODERS = tuple(  # what frozen networks see that were trained to classify; the last one learned nothing
    Setup("unet_encoder", {"decoder_width": 8} | SCRATCH, "freeze", (source,))
    for source in (made("ham10000_derm", "mobilenet"), made("brain_tumor_mri", "mobilenet"),
                   made("flowers5", "mobilenet"), RANDOM_MOBILE[0])
)  # fmt: skip
SEGMENTER_VARIANTS = (
    Setup("unet_encoder", {"decoder_width": 8, "encoder_factor": 0.1} | TUNE, "finetune", (IMAGENET,)),
    Setup("lraspp", {"encoder_factor": 0.1} | TUNE, "finetune", (IMAGENET,)),
) + tuple(
    Setup("unet", {"width": 8} | SCRATCH | variant)
    for variant in ({"loss": "ce"}, {"loss": "tversky"}, {"class_weights": "balanced"}, {"loss": "dice"},
                    {"loss": "focal"}, {"residual": True, "attention": True}, {"norm": "instance"},
                    {"test_flips": True})
)  # fmt: skip


def _masks(name: str, setups: tuple[Setup, ...], sizes=(100,), seeds=(0,)) -> Suite:
    return Suite(name, SEGMENTED, setups, sizes=sizes, seeds=seeds, procedure="holdout")


def _bags(name: str, datasets: tuple[str, ...], setups: tuple[Setup, ...], splits=(0,), procedure="5-fold") -> Suite:
    return Suite(name, datasets, setups, procedure=procedure, splits=splits)


def _everywhere(name: str, setups: tuple[Setup, ...], sizes=SIZES, splits=SPLITS, datasets=CLASSIFICATION) -> Suite:
    return Suite(name, datasets, setups, sizes=sizes, procedure="holdout", splits=splits)


def _robust(name: str, setups: tuple[Setup, ...], size: int | None = 50, datasets=COMPACT) -> Suite:
    return Suite(name, datasets, setups, sizes=(size,), procedure="holdout", splits=(3,), robust=True)


SUITES = {
    # One grouped holdout per dataset, 64 px or the dataset's own size if smaller, up to 600 labelled images.
    "first": Suite("first", CLASSIFICATION, FIRST, seeds=(0, 1), sizes=(600,), procedure="holdout"),
    # Probes do not depend on their seed: each of their runs has a split of its own.
    "probes": _everywhere("probes", probes(SHIPPED, "probe.linear", "probe.knn")),
    # The same with one scale for all features, which is what such probes need where images are few.
    "scaled": _everywhere("scaled", probes(SHIPPED, scaling="all")),
    "scaled600": _everywhere("scaled600", probes(SHIPPED, scaling="all"), (600,), (0,)),
    "scaled_chained": _everywhere("scaled_chained", SCALED[0], FEW_SIZES, datasets=COMPACT),
    "scaled_small": _everywhere("scaled_small", SCALED[1], FEW_SIZES, datasets=COMPACT),
    "small_sources": learners("small_sources", CLASSIFICATION, FROM_SCRATCH),
    "chained_sources": learners("chained_sources", CLASSIFICATION, ON_IMAGENET),
    "from_small": _everywhere("from_small", UNTUNED, FEW_SIZES, datasets=COMPACT),
    "from_chained": _everywhere("from_chained", TURNED, FEW_SIZES, datasets=COMPACT),
    "from_small_more": _everywhere("from_small_more", UNTUNED),
    "from_chained_more": _everywhere("from_chained_more", TURNED),
    "trained50": _everywhere("trained50", TRAINED[:2], (50,), (0,)),
    "trained50_more": _everywhere("trained50_more", TRAINED[2:], (50,), (0,)),
    "trained100": _everywhere("trained100", TRAINED, (100,), (0,)),
    "trained200": _everywhere("trained200", TRAINED, (200,), (0,)),
    "recipes50": _everywhere("recipes50", RECIPES, (50,), (0,)),
    "networks50": _everywhere("networks50", NETWORKS, (50,), (0,)),
    "networks200": _everywhere("networks200", NETWORKS, (200,), (0,)),
    # A split that no other suite has: what is not part of a run's identity is measured only when a run is first made.
    "robust": _robust("robust", UNPROVEN),
    "robust_all": _robust("robust_all", probes((*SHIPPED, RANDOM_MOBILE[0]), scaling="all"), None),
    "robust_more": _robust("robust_more", UNPROVEN, datasets=CLASSIFICATION),
    "tuned": _everywhere("tuned", TUNED, (100,), (0,)),
    "varied_sources": learners("varied_sources", (*SHUFFLED, *GREY), FROM_SCRATCH),
    "resized_sources": learners("resized_sources", RESIZED, FROM_SCRATCH, sizes=(50, 150, None)),
    "fewer_sources": learners("fewer_sources", FEWER, FROM_SCRATCH, sizes=(300,)),
    "from_varied": _everywhere("from_varied", probes(VARIED, image_size=32), (50, None), (0, 1), COMPACT),
    "shuffled_sources": learners("shuffled_sources", SHUFFLED, ON_IMAGENET),
    "from_shuffled": _everywhere("from_shuffled", probes(CONFUSED, scaling="all"), FEW_SIZES, datasets=COMPACT),
    # Masks: one grouped holdout each, 64 px, up to 100 images with masks. Cheap ones first.
    "masks": _masks("masks", SEGMENTERS),
    "masks_encoders": _masks("masks_encoders", OTHER_ENCODERS),
    "masks_variants": _masks("masks_variants", SEGMENTER_VARIANTS),
    "masks_few": _masks("masks_few", CHEAP_SEGMENTERS, (20, 50)),
    "masks_again": _masks("masks_again", SEEDED, seeds=(1, 2)),
    "masks_all": _masks("masks_all", CHEAP_SEGMENTERS, (None,)),
    # Bags: five folds, three times over, each time with folds of their own. Smallest sets first.
    "bags": _bags("bags", SMALL_BAGS, VARIANTS),
    "bags_nuclei": _bags("bags_nuclei", NUCLEI, ON_IMAGES),
    "bags_tissue": _bags("bags_tissue", TISSUE, ON_IMAGES, (0, 1, 2), "holdout"),
    "bags_large": _bags("bags_large", LARGE_BAGS, VARIANTS),
    "bags_wide": _bags("bags_wide", WIDE_BAGS, tuple(s for s in VARIANTS if s not in NARROW)),
    # Ten folds, five times over, as published figures of the classic variants are made.
    "bags_ten": _bags("bags_ten", LITERATURE, bag_setups(*CLASSICS), (0,), "10-fold"),
    "bags_ten_again": _bags("bags_ten_again", LITERATURE, bag_setups(*CLASSICS), (1, 2, 3, 4), "10-fold"),
    "bags_ten_networks": _bags("bags_ten_networks", LITERATURE, bag_setups(*BAG_NETWORKS[:1], *BAG_NETWORKS[2:5]),
                               procedure="10-fold"),
    "bags_again": _bags("bags_again", SMALL_BAGS, VARIANTS, (1, 2)),
    "bags_nuclei_again": _bags("bags_nuclei_again", NUCLEI, ON_IMAGES, (1, 2)),
    "bags_eyes": _bags("bags_eyes", NUCLEI, OTHER_EYES, (0, 1, 2)),
    "bags_tissue_eyes": _bags("bags_tissue_eyes", TISSUE, OTHER_EYES, (0, 1, 2), "holdout"),
    "bags_most": _bags("bags_most", MOST_BAGS, VARIANTS),
    "bags_large_again": _bags("bags_large_again", LARGE_BAGS, VARIANTS, (1, 2)),
    "bags_most_again": _bags("bags_most_again", MOST_BAGS, VARIANTS, (1, 2)),
}
