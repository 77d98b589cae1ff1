"""Segmentation in the benchmark: the steps of a pair, and a meter of large maps."""

import numpy as np

from tf_mskd.data.nuclei import load_nuclei
from tf_mskd.tasks import create_task
from tf_mskd.tasks.meter import Meter
from tools.our_cases import OurCases

ONE_EXIT = ("student, all exits", "teacher forward")
ALL_EXITS = ("student, all exits", "teacher forward, all exits")
COMPARED = {  # case -> what its time is divided by
    "mskd, live": ONE_EXIT,
    "oto, live": ALL_EXITS,
    "cwd, live": ALL_EXITS,
    "pairwise, live": ALL_EXITS,
    "fckd, live": ALL_EXITS,
}
SIZES = {  # name -> classes, width of the teacher and of the student
    "nuclei": (3, 0.25, 0.0625),  # as in configs/nuclei
    "wider": (21, 0.5, 0.25),
}


def dense_cases(size, batch_size):
    """The steps of ResNet-18 to ResNet-10 on windows of 64x64 pixels, by name.

    Args:
        size: name in `SIZES`; of its classes the windows have three.
        batch_size: int.
    """
    classes, *widths = SIZES[size]
    source = load_nuclei()
    parts = (source.train, source.test)
    images = np.concatenate([part.images for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    rows = np.arange(batch_size) % len(images)
    same = {"num_classes": classes, "input_shape": (64, 64, 1)}
    pair = zip(("resnet18", "resnet10"), widths, strict=True)
    networks = [{"name": name, "width": width, **same} for name, width in pair]
    ours = OurCases(*networks, (images[rows], labels[rows]), None, "segmentation")
    return {name: ours.case(name) for name in (*ALL_EXITS, ONE_EXIT[1], *COMPARED)}


def meter_large_maps(images=1000, batch_size=16):
    """Meters a split of 512x512 maps, 21 classes, 4 exits of 128x128 and both votes.

    The batches are random and made one after another, as evaluation delivers them.
    """
    generator, classes = np.random.default_rng(0), 21
    meter = Meter(create_task("segmentation"))
    for first in range(0, images, batch_size):
        count = min(batch_size, images - first)
        shape = (count, 128, 128, classes)
        names = [f"exit_{k}" for k in range(1, 5)]
        outputs = {n: generator.standard_normal(shape, np.float32) for n in names}
        labels = generator.integers(0, classes, (count, 512, 512), np.uint8)
        meter.update(outputs, labels)
    return meter.results()
