#!/usr/bin/env bash
# Makes .venv in this checkout: the pinned packages, and JAX for an accelerator.
#
#   bash launch/setup.sh cpu|cuda|tpu [PYTHON] [--dry-run]
#
# PYTHON is 3.11 or newer (by default the first of python3.11, python3.12, python3.13 and python3).
# Where there is none, as on TPU VMs with Ubuntu 22.04, uv installs one. Safe to repeat.

set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/common.sh
. launch/common.sh

accelerator='' python='' dry_run=0
for word in "$@"; do
  case $word in
    --dry-run) dry_run=1 ;;
    --help) help "$0" ;;
    cpu | cuda | tpu) accelerator=$word ;;
    -*) die "unknown option $word; see $0 --help" ;;
    *) python=$word ;;
  esac
done
[ -n "$accelerator" ] || die "the accelerator is missing: bash launch/setup.sh cpu, cuda or tpu"

is_new() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
if [ -n "$python" ]; then
  is_new "$python" || die "$python does not run, or is older than 3.11; give another one"
else
  for name in python3.11 python3.12 python3.13 python3; do
    if is_new "$name"; then python=$name && break; fi
  done
fi
if [ -n "$python" ]; then
  minor=$("$python" -c 'import sys; print(sys.version_info[1])')
  run "$python" -m venv .venv
else
  need python3 "install Python 3.11 or newer"
  minor=11
  run python3 -m pip install --quiet --user uv
  run python3 -m uv venv --allow-existing --seed --python 3.11 .venv
fi
pins=requirements/py312.txt
[ "$minor" != 11 ] || pins=requirements/py311.txt
extra=()
case $accelerator in
  cuda) extra=('jax[cuda13]') ;;
  tpu) extra=('jax[tpu]') ;;
esac
# In one command, so that what is not pinned fits what is; gcsfs is for work dirs in gs://.
run .venv/bin/python -m pip install --quiet -r "$pins" gcsfs ${extra[@]+"${extra[@]}"}
run .venv/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
