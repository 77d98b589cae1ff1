"""The same distillation work by other means: keras.distillation and a PyTorch loop.

The work of one step is Hinton's KD at temperature 4, labels and teacher weighed alike,
SGD with momentum 0.9 and L2 5e-4, on one batch of images already scaled.
"""

import os

import keras
import tensorflow as tf

import tf_mskd
from tf_mskd.models.graph import output_tensors
from tools.timing import loop_case

TEMPERATURE, RATE, MOMENTUM, L2 = 4.0, 0.01, 0.9, 5e-4


def keras_case(teacher_name, student_name, batch):
    """Steps of `keras.distillation.Distiller`; our networks, its step."""
    teacher, student = (
        _single(tf_mskd.create_model(name, 100, exits="last"))
        for name in (teacher_name, student_name)
    )
    distiller = keras.distillation.Distiller(
        teacher,
        student,
        keras.distillation.LogitsDistillation(temperature=TEMPERATURE),
        student_loss_weight=0.5,
    )
    distiller.compile(
        tf_mskd.SGD(RATE, MOMENTUM, l2=L2),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    data = tf.nest.map_structure(tf.constant, batch)
    distiller.optimizer.build(student.trainable_variables)
    distiller.train_step(data)  # it builds its metrics in the first one
    done = distiller.optimizer.iterations.numpy
    return loop_case(distiller.train_step, lambda: data, done)


def _single(model):
    (logits,) = output_tensors(model).values()
    return keras.Model(model.input, logits)


def torch_case(teacher_name, student_name, batch, memory_format):
    """Steps of a plain PyTorch loop over the same networks; None without PyTorch.

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


def _torch_network(name):
    """The network as PyTorch modules; as many weights as ours has."""
    from torch import nn

    network = _vgg(nn, name) if name.startswith("vgg") else _resnet(nn, name)
    ours = tf_mskd.create_model(name, 100, exits="last")
    expected = sum(int(tf.size(w)) for w in ours.trainable_weights)
    got = sum(p.numel() for p in network.parameters())
    if got != expected:
        raise AssertionError(f"{name}: {got} weights in PyTorch, {expected} in Keras")
    return network


def _vgg(nn, name):
    from tf_mskd.models.vgg import DEPTHS, WIDTHS

    layers, inputs = [], 3
    for block, (depth, width) in enumerate(zip(DEPTHS[name], WIDTHS, strict=True)):
        if 0 < block < 4:
            layers.append(nn.MaxPool2d(2))
        for _ in range(depth):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width)]
            layers.append(nn.ReLU(inplace=True))
            inputs = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 100)]
    return nn.Sequential(*layers, *head)


def _resnet(nn, name):
    from tf_mskd.models import blocks
    from tf_mskd.models.resnet import BLOCKS

    block, depths = BLOCKS[name]
    is_deep = block is blocks.bottleneck_block

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
