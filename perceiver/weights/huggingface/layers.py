"""Rules of the layers that PyTorch's modules have in common: linear layers and norms."""

from perceiver.weights.mapping import KEEP, TRANSPOSE, Rule, Transform


def linear(source: str, target: str) -> list[Rule]:
    """Returns the rules of a linear layer; theirs keeps its weight as [out, in]."""
    return [
        Rule(f"{source}.weight", f"{target}/w", TRANSPOSE),
        Rule(f"{source}.bias", f"{target}/b"),
    ]


def norm(source: str, target: str, transform: Transform = KEEP) -> list[Rule]:
    """Returns the rules of a norm."""
    return [
        Rule(f"{source}.weight", f"{target}/scale", transform),
        Rule(f"{source}.bias", f"{target}/offset", transform),
    ]


def dropped(*sources: str) -> list[Rule]:
    """Returns rules of arrays that mean nothing to the model, should a file hold them."""
    return [Rule(source, None) for source in sources]
