"""A row of the count, and what a matrix product, attention and an MLP cost."""

import dataclasses

from perceiver.attention import APPROXIMATE, random_features
from perceiver.kinds.specs import Backbone, Transformer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One operation, done `times` times with the same sizes."""

    part: str  # inputs, cross-attends, processors, outputs
    operation: str
    once: int  # FLOPs of doing it one time
    times: int = 1
    shared: bool = False  # True: done once for a batch, because it does not depend on the example

    @property
    def flops(self) -> int:
        """FLOPs of all times together."""
        return self.once * self.times


def rows(part: str, operations: dict[str, int], times: int = 1) -> list[Row]:
    """Returns a row for each operation, all done as many times."""
    return [
        Row(part=part, operation=name, once=flops, times=times)
        for name, flops in operations.items()
    ]


def linear(elements: int, fan_in: int, fan_out: int) -> int:
    """A matrix product with each element's channels."""
    return 2 * elements * fan_in * fan_out


def attention(
    *,
    queries: tuple[int, int],
    keys: tuple[int, int],
    qk_channels: int,
    v_channels: int,
    heads: int,
    kernel: str,
    features: int,
) -> dict[str, int]:
    """Queries (elements, channels) attend to keys; of exact kernels, heads cancel out."""
    (q_elements, q_channels), (k_elements, k_channels) = queries, keys
    if kernel in APPROXIMATE:
        width = features * random_features.MAPS[kernel.removeprefix("favor_")].width
        attend = {
            "features of queries": linear(q_elements, qk_channels, features),
            "features of keys": linear(k_elements, qk_channels, features),
            "sums over keys": linear(k_elements, width, v_channels),
            "weighted values": linear(q_elements, width, v_channels),
            "normalisers": linear(k_elements, width, heads) + linear(q_elements, width, heads),
        }
    else:
        attend = {
            "logits": linear(q_elements, qk_channels, k_elements),
            "weighted values": linear(q_elements, k_elements, v_channels),
        }
    return {
        "project queries": linear(q_elements, q_channels, qk_channels),
        "project keys": linear(k_elements, k_channels, qk_channels),
        "project values": linear(k_elements, k_channels, v_channels),
        **attend,
        "project result": linear(q_elements, v_channels, q_channels),
    }


def kernel_of(spec: Backbone | Transformer, heads: int) -> dict[str, str | int]:
    """Returns what `attention` has to know of a spec's kernel, and of the heads of its use."""
    return {"heads": heads, "kernel": spec.kernel, "features": spec.kernel_features}


def mlp(elements: int, channels: int, widening: int) -> dict[str, int]:
    """Two linear layers."""
    return {"MLP": 2 * linear(elements, channels, channels * widening)}
