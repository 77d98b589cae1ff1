"""The distillation work of the benchmark as a plain PyTorch loop; no TensorFlow here.

The work of one step is Hinton's KD at temperature 4, labels and teacher weighed alike,
SGD with momentum 0.9 and L2 5e-4, on one batch of images already scaled.

    python tools/torch_loop.py TEACHER STUDENT FORMAT BATCH_SIZE    three steps
"""

import os
import pathlib
import sys

TEMPERATURE, RATE, MOMENTUM, L2 = 4.0, 0.01, 0.9, 5e-4

VGG_WIDTHS = (64, 128, 256, 512, 512)
VGG_DEPTHS = {"vgg8": (1, 1, 1, 1, 1), "vgg11": (1, 1, 2, 2, 2)}
VGG_DEPTHS |= {"vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3)}
RESNET_DEPTHS = {"resnet10": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2)}
RESNET_DEPTHS |= {"resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
RESNET_DEPTHS |= {"resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}


def torch_case(teacher_name, student_name, batch, memory_format):
    """Steps of a plain loop over our networks in PyTorch; None if that is missing.

    Args:
        teacher_name, student_name: a VGG or a ResNet of `create_model`.
        batch: (uint8 [B, H, W, 3], int [B]).
        memory_format: "contiguous_format" (channels first) or "channels_last".
    """
    try:
        import torch
    except ImportError:
        return None
    functional = torch.nn.functional
    torch.set_num_threads(os.cpu_count())
    layout = getattr(torch, memory_format)
    teacher, student = (
        _torch_network(name).to(memory_format=layout)
        for name in (teacher_name, student_name)
    )
    teacher.eval().requires_grad_(False)
    optimizer = torch.optim.SGD(
        student.parameters(), RATE, momentum=MOMENTUM, weight_decay=L2
    )
    images = torch.from_numpy(batch[0].astype("float32") / 255.0).permute(0, 3, 1, 2)
    images = images.contiguous(memory_format=layout)
    labels = torch.from_numpy(batch[1].astype("int64"))

    def train(n):
        for _ in range(n):
            with torch.inference_mode():
                guide = teacher(images)
            logits = student(images)
            soft = functional.kl_div(
                functional.log_softmax(logits / TEMPERATURE, 1),
                functional.softmax(guide / TEMPERATURE, 1),
                reduction="batchmean",
            )
            hard = functional.cross_entropy(logits, labels)
            loss = 0.5 * hard + 0.5 * TEMPERATURE**2 * soft
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    return train


def count_weights(name):
    """Number of trained weights of the PyTorch network."""
    return sum(p.numel() for p in _torch_network(name).parameters())


def _torch_network(name):
    from torch import nn

    return _vgg(nn, name) if name in VGG_DEPTHS else _resnet(nn, name)


def _vgg(nn, name):
    layers, inputs = [], 3
    pairs = zip(VGG_DEPTHS[name], VGG_WIDTHS, strict=True)
    for block, (depth, width) in enumerate(pairs):
        if 0 < block < 4:
            layers.append(nn.MaxPool2d(2))
        for _ in range(depth):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width)]
            layers.append(nn.ReLU(inplace=True))
            inputs = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 100)]
    return nn.Sequential(*layers, *head)


def _resnet(nn, name):
    depths, is_deep = RESNET_DEPTHS[name], int(name.removeprefix("resnet")) >= 50

    def conv(inputs, outputs, kernel, stride=1):
        padding = kernel // 2
        layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        return [layer, nn.BatchNorm2d(outputs)]

    class Block(nn.Module):
        def __init__(self, inputs, width, stride):
            super().__init__()
            outputs, relu = width * (4 if is_deep else 1), nn.ReLU(inplace=True)
            if is_deep:
                first, last = conv(inputs, width, 1), conv(width, outputs, 1)
                layers = [*first, relu, *conv(width, width, 3, stride), relu, *last]
            else:
                first = conv(inputs, width, 3, stride)
                layers = [*first, relu, *conv(width, width, 3)]
            self.body, self.skip = nn.Sequential(*layers), nn.Sequential()
            if stride > 1 or inputs != outputs:
                self.skip = nn.Sequential(*conv(inputs, outputs, 1, stride))
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x):
            return self.relu(self.body(x) + self.skip(x))

    layers, inputs = [*conv(3, 64, 3), nn.ReLU(inplace=True)], 64
    for stage, depth in enumerate(depths):
        for index in range(depth):
            stride = 2 if stage and not index else 1
            layers.append(Block(inputs, 64 * 2**stage, stride))
            inputs = 64 * 2**stage * (4 if is_deep else 1)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 100)]
    return nn.Sequential(*layers, *head)


if __name__ == "__main__":  # the benchmark looks at the memory of this process
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
    from tools.timing import digits_batch

    case = torch_case(*sys.argv[1:3], digits_batch(int(sys.argv[4])), sys.argv[3])
    if case is None:
        sys.exit("PyTorch is not installed.")
    case(3)
