"""Configs: one file per experiment, `get_config("variant,smoke")`; `common.py` lists all fields."""
