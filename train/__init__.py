"""Device side: the step, the loop and the tasks. Run from a checkout: `python -m train`."""

import pathlib

import data

_HERE = pathlib.Path(__file__).resolve().parents[1]
if pathlib.Path(data.__file__).resolve().parents[1] != _HERE:
    raise ImportError(
        f"`import data` found {data.__file__}, not the folder beside {__file__}; "
        f"run from the checkout: cd {_HERE} && python -m train ..."
    )
