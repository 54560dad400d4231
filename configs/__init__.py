"""Configs: one file an experiment, `get_config("variant,smoke")`; `common.py` lists every field."""
