"""Networks with exits, and tools on their graphs.

A model here is a Keras functional model whose output is a dict of named tensors:
`exit_k` logits, `feature_k` feature maps, `preact_k`, `embedding_k`.
"""

from tf_mskd.models import resized as resized  # files may hold its layer
from tf_mskd.models.attach import add_exits
from tf_mskd.models.create import available_models, create_model
from tf_mskd.models.graph import detach_stages, exit_names, sub_model
from tf_mskd.models.macs import count_macs
from tf_mskd.models.torch_weights import load_torch_weights

__all__ = [
    "add_exits",
    "available_models",
    "count_macs",
    "create_model",
    "detach_stages",
    "exit_names",
    "load_torch_weights",
    "sub_model",
]
