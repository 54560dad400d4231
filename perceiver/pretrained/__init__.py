"""A model together with its weights: loading it and using it.

`perceiver.load`, `perceiver.fresh` and `perceiver.Pretrained` come from here; imports everything of
the package but the commands.
"""
