"""What a classifier of texts is."""

import dataclasses

from perceiver.kinds.specs.masked_lm import MaskedLM

# How a model of several tasks knows which is asked (Perceiver IO, section 4.1 and table 2).
MULTITASK = ("query", "shared_token", "task_tokens")
HEADS = ("mlp", "linear")  # after a query's decoder: the paper's two layers, or one


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextClassifier(MaskedLM):
    """Token ids [B, M] -> logits [B, K], or one number (Perceiver IO, section 4.1).

    Its encoder is that of the masked language model with the same fields. A `query` of its own asks
    for each task. With a token, which the model itself puts before the text, one query asks for all
    tasks: the token is [CLS] (`shared_token`), or the task's (`task_tokens`).
    """

    kind = "text_classifier"

    classes: int  # K, of all tasks side by side; 1: a number in place of a class
    tasks: tuple[str, ...] = ()  # names; (): one task
    task_classes: tuple[int, ...] = ()  # of each task
    multitask: str = "query"
    head: str = "mlp"
    query_channels: int = 0  # 0: embedding_channels

    def __post_init__(self):
        super().__post_init__()
        self._positive("classes")
        self._choice("multitask", MULTITASK)
        self._choice("head", HEADS)
        whole = self.query_channels >= 0 and self.query_channels % self.query_heads == 0
        self._require(whole, "query_channels", f"must be a multiple of {self.query_heads=}, or 0")
        named = all(isinstance(name, str) and name.isidentifier() for name in self.tasks)
        named = named and len(set(self.tasks)) == len(self.tasks)
        self._require(named, "tasks", "must be different words")
        rule = f"must be the classes of each of tasks={self.tasks}"
        whole = all(isinstance(n, int) and n > 0 for n in self.task_classes)
        self._require(whole and len(self.task_classes) == len(self.tasks), "task_classes", rule)
        if self.tasks:
            total = sum(self.task_classes)
            self._require(self.classes == total, "classes", f"must be {total}, those of all tasks")
        self._require(self.text_length > 0, "max_length", "leaves no room for a text")

    @property
    def has_token(self) -> bool:
        """Whether a token stands before the text."""
        return bool(self.tasks) and self.multitask != "query"

    @property
    def text_length(self) -> int:
        """The tokens that a text may have."""
        return self.max_length - self.has_token

    @property
    def heads(self) -> tuple[tuple[str, int], ...]:
        """(name, classes) of each task, one without a name if there is one only."""
        if not self.tasks:
            return (("", self.classes),)
        return tuple(zip(self.tasks, self.task_classes, strict=True))

    @property
    def columns(self) -> dict[str, slice]:
        """Where the logits of each task are."""
        columns, start = {}, 0
        for name, classes in self.heads:
            columns[name] = slice(start, start + classes)
            start += classes
        return columns
