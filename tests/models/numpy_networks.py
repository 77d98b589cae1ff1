"""The published networks once more, in NumPy, as a reference for loaded weights.

NCHW, PyTorch's names and semantics (OIHW kernels, `padding=1` on all sides, batch norm
in evaluation mode), written from the networks' definitions and sharing nothing with
the package. A `StateDict` makes up a weight when it is first asked for, so the names
come from this file and not from the loader under test.
"""

import numpy as np


class StateDict(dict):
    """Random weights by PyTorch name, drawn when a network first asks for them."""

    def __init__(self, seed):
        super().__init__()
        self.random = np.random.default_rng(seed)

    def get_or_make(self, name, make):
        if name not in self:
            self[name] = make(self.random).astype("float32")
        return self[name].astype("float64")

    def conv_weight(self, name, out, inner, kernel):
        scale = np.sqrt(2 / (inner * kernel * kernel))
        shape = (out, inner, kernel, kernel)
        return self.get_or_make(name, lambda r: r.normal(0, scale, shape))

    def vector(self, name, size, low, high):
        return self.get_or_make(name, lambda r: r.uniform(low, high, size))


def conv(state, name, x, out, kernel, stride=1, padding=0, bias=False):
    """torch.nn.Conv2d on [N, C, H, W]."""
    weight = state.conv_weight(f"{name}.weight", out, x.shape[1], kernel)
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    height = (x.shape[2] - kernel) // stride + 1
    width = (x.shape[3] - kernel) // stride + 1
    total = np.zeros((len(x), out, height, width))
    for row in range(kernel):
        for column in range(kernel):
            rows = slice(row, row + (height - 1) * stride + 1, stride)
            columns = slice(column, column + (width - 1) * stride + 1, stride)
            patch = x[:, :, rows, columns]
            total += np.einsum("nchw,oc->nohw", patch, weight[:, :, row, column])
    if bias:
        total += state.vector(f"{name}.bias", out, -0.5, 0.5)[None, :, None, None]
    return total


def depthwise(state, name, x, stride):
    """torch.nn.Conv2d(C, C, 3, stride, padding=1, groups=C, bias=False)."""
    weight = state.get_or_make(
        f"{name}.weight", lambda r: r.normal(0, 0.5, (x.shape[1], 1, 3, 3))
    )
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride]
    return np.einsum("nchwij,cij->nchw", windows, weight[:, 0])


def bn(state, name, x):
    """torch.nn.BatchNorm2d in evaluation mode, eps 1e-5."""
    size = x.shape[1]
    mean = state.vector(f"{name}.running_mean", size, -0.5, 0.5)
    var = state.vector(f"{name}.running_var", size, 0.5, 2.0)
    weight = state.vector(f"{name}.weight", size, 0.5, 1.5)
    bias = state.vector(f"{name}.bias", size, -0.5, 0.5)
    state.setdefault(f"{name}.num_batches_tracked", np.array(7))
    x = x.transpose(0, 2, 3, 1)  # channels last, where vectors broadcast
    return ((x - mean) / np.sqrt(var + 1e-5) * weight + bias).transpose(0, 3, 1, 2)


def relu(x):
    return np.maximum(x, 0)


def relu6(x):
    return np.clip(x, 0, 6)


def max_pool(x):
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5))


def overlapping_max_pool(x):
    """torch.nn.MaxPool2d(3, 2, padding=1), whose padding is minus infinity."""
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    return windows[:, :, ::2, ::2].max((4, 5))


def linear(state, name, x, classes):
    weight = state.get_or_make(
        f"{name}.weight", lambda r: r.normal(0, 1, (classes, x.shape[1]))
    )
    return x @ weight.T + state.vector(f"{name}.bias", classes, -1, 1)


def basic_block(state, name, x, planes, stride, skip="shortcut"):
    y = conv(state, f"{name}.conv1", x, planes, 3, stride, 1)
    y = relu(bn(state, f"{name}.bn1", y))
    y = bn(state, f"{name}.bn2", conv(state, f"{name}.conv2", y, planes, 3, 1, 1))
    return relu(y + project(state, f"{name}.{skip}", x, planes, stride))


def bottleneck(state, name, x, planes, stride, skip="shortcut"):
    y = relu(bn(state, f"{name}.bn1", conv(state, f"{name}.conv1", x, planes, 1)))
    y = conv(state, f"{name}.conv2", y, planes, 3, stride, 1)
    y = relu(bn(state, f"{name}.bn2", y))
    y = bn(state, f"{name}.bn3", conv(state, f"{name}.conv3", y, 4 * planes, 1))
    return relu(y + project(state, f"{name}.{skip}", x, 4 * planes, stride))


def project(state, name, x, out, stride):
    if stride == 1 and x.shape[1] == out:
        return x
    return bn(state, f"{name}.1", conv(state, f"{name}.0", x, out, 1, stride))


def resnet(state, x, block, depths, planes, classes):
    """`planes`: channels of stage 1; each later stage has twice as many."""
    x = relu(bn(state, "bn1", conv(state, "conv1", x, planes, 3, 1, 1)))
    for stage, depth in enumerate(depths):
        for index in range(depth):
            stride = 2 if stage > 0 and index == 0 else 1
            x = block(state, f"layer{stage + 1}.{index}", x, planes * 2**stage, stride)
    return linear(state, "linear", x.mean((2, 3)), classes)


def torchvision_resnet(state, x, block, depths, planes, classes):
    """As `resnet`, behind the stem of ImageNet and with torchvision's names."""
    x = relu(bn(state, "bn1", conv(state, "conv1", x, planes, 7, 2, 3)))
    x = overlapping_max_pool(x)
    for stage, depth in enumerate(depths):
        for index in range(depth):
            name, out = f"layer{stage + 1}.{index}", planes * 2**stage
            stride = 2 if stage > 0 and index == 0 else 1
            x = block(state, name, x, out, stride, skip="downsample")
    return linear(state, "fc", x.mean((2, 3)), classes)


def mobilenet_v2(state, x, stem, rows, last, classes, stride):
    """`rows`: (expansion, channels, blocks, first stride) of table 2; names `features`.

    `stride`: of the first convolution.
    """
    x = conv(state, "features.0.0", x, stem, 3, stride, 1)
    x, number = relu6(bn(state, "features.0.1", x)), 0
    for expansion, channels, count, first in rows:
        for index in range(count):
            number += 1
            start, entry = f"features.{number}.conv", 0
            y = x
            if expansion > 1:
                y = conv(state, f"{start}.0.0", x, expansion * x.shape[1], 1)
                y, entry = relu6(bn(state, f"{start}.0.1", y)), 1
            step = first if index == 0 else 1
            y = depthwise(state, f"{start}.{entry}.0", y, step)
            y = relu6(bn(state, f"{start}.{entry}.1", y))
            y = conv(state, f"{start}.{entry + 1}", y, channels, 1)
            y = bn(state, f"{start}.{entry + 2}", y)
            x = x + y if step == 1 and x.shape[1] == channels else y
    x = conv(state, f"features.{number + 1}.0", x, last, 1)
    x = relu6(bn(state, f"features.{number + 1}.1", x))
    return linear(state, "classifier.1", x.mean((2, 3)), classes)


def vgg(state, x, plan, classes):
    """`plan`: for each of the five blocks a list of channel counts."""
    is_64 = x.shape[2] == 64
    for block, channels in enumerate(plan):
        for index, out in enumerate(channels):
            # One Sequential of conv, bn, relu, conv, bn, relu, ...: three entries each.
            x = conv(state, f"block{block}.{3 * index}", x, out, 3, 1, 1, bias=True)
            x = relu(bn(state, f"block{block}.{3 * index + 1}", x))
        if block < 3 or (block == 3 and is_64):
            x = max_pool(x)
    return linear(state, "classifier", x.mean((2, 3)), classes)


def wrn(state, x, blocks_per_stage, stem, planes, classes):
    """`planes`: channels of stage 1; each later stage has twice as many."""
    x = conv(state, "conv1", x, stem, 3, 1, 1)
    for stage in range(3):
        out = planes * 2**stage
        for index in range(blocks_per_stage):
            name = f"block{stage + 1}.layer.{index}"
            stride = 2 if stage > 0 and index == 0 else 1
            equal = x.shape[1] == out
            active = relu(bn(state, f"{name}.bn1", x))
            y = conv(state, f"{name}.conv1", active, out, 3, stride, 1)
            y = relu(bn(state, f"{name}.bn2", y))
            y = conv(state, f"{name}.conv2", y, out, 3, 1, 1)
            skip = (
                x
                if equal
                else conv(state, f"{name}.convShortcut", active, out, 1, stride)
            )
            x = skip + y
    return linear(state, "fc", relu(bn(state, "bn1", x)).mean((2, 3)), classes)
