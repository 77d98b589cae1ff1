"""Names that settings choose from: flags read them, so this module imports nothing."""

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker")
DTYPE_POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
ARCHIVED_SETS = ("tiny_imagenet",)  # prepared from an archive, by a module so named
AUGMENTATIONS = (
    *("autoaugment", "blur", "crop", "cutout", "erase", "flip", "grey", "jda"),
    *("jitter", "none", "randaugment", "resized_crop", "rotate", "source_crop"),
    "trivialaugment",
)
STRONG_AUGMENTATIONS = tuple(
    name
    for name in AUGMENTATIONS
    if name not in ("crop", "flip", "none", "source_crop")
)
ERASE_FILLS = ("noise", "black")
RESIZES = ("crop", "squeeze")
MEMORIES = ("auto", "stream", "decoded")
BAD_IMAGES = ("stop", "skip")
ALWAYS_DECODED = (  # sets that are small, or of images that belong together
    *("digits", "nuclei", "low_light", "pairs", "pascal_voc", "cityscapes"),
)
MODELS = (
    *("resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("vgg8", "vgg11", "vgg13", "vgg16", "vgg19"),
    *("wrn_16_1", "wrn_16_2", "wrn_28_10", "wrn_40_1", "wrn_40_2"),
    *("mobilenet_v1", "mobilenet_v2"),
    "unet",
)
STEMS = ("small", "imagenet")
WIDE_RESNET = r"wrn_([1-9]\d*)_([1-9]\d*)"  # any depth and factor, not only those above
EXIT_HEADS = ("dense", "separable", "bottleneck", "stage", "linear")
AUX_HEADS = ("projection", "rotation", "paraphraser")
PHASES = ("joint", "progressive", "detached")
PHASE_RATES = ("shared", "restart")
ENSEMBLES = ("logits", "probabilities")
TASKS = (
    *("classification", "multi_label", "binary"),
    *("segmentation", "restoration", "hashing"),
)
FROZEN = ("none", "backbone")
OPTIMIZERS = ("sgd", "adamw", "adam", "lion", "muon")
LEARNING_RATES = ("step", "cosine", "constant")
CRITERIA = ("max_probability", "margin", "entropy", "patience")
ANSWERS = ("ensemble", "exit")
STUDENTS = ("last", "best")
FORMATS = ("saved_model", "tflite")
QUANTIZATIONS = ("none", "float16", "dynamic", "int8")
