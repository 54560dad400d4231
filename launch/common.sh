# What the launchers share. Sourced by them, after `set -euo pipefail`; needs bash 3.2 or newer.
# shellcheck shell=bash disable=SC2034,SC2154

# How `python -m train` ends: train/guard/exit_codes.py.
PREEMPTED=75
HUNG=76
ATTEMPTS=20 # starts in all, before a launcher gives up; the default of every --attempts

say() { echo "launch: $*" >&2; }

die() {
  say "$*"
  exit 2
}

# The comment at the top of a script is its help.
help() {
  sed -n '2,/^$/s/^# \{0,1\}//p' "$1"
  exit 0
}

# need TOOL REMEDY
need() { command -v "$1" >/dev/null 2>&1 || die "$1 is not on PATH; $2"; }

# need_value NAME VALUE EXAMPLE
need_value() { [ -n "$2" ] || die "$1 is missing, such as $1=$3"; }

# need_count NAME VALUE: a whole number of at least 1.
need_count() {
  case $2 in
    '' | *[!0-9]* | 0*) die "$1=$2 must be an integer of at least 1" ;;
  esac
}

# need_seconds NAME VALUE: a whole number.
need_seconds() {
  case $2 in
    '' | *[!0-9]*) die "$1=$2 must be an integer number of seconds" ;;
  esac
}

# Checks the arguments after `--`, which are passed to `python -m train` unchanged.
check_words() {
  local word config='' workdir=''
  for word in "$@"; do
    case $word in
      --config=*) config=$word ;;
      --workdir=*) workdir=$word ;;
      --coordinator=* | --processes=* | --process=*)
        die "$word is set by the launcher, differently on each host; leave it out" ;;
    esac
  done
  [ -n "$config" ] && [ -n "$workdir" ] ||
    die "after --, give the arguments of python -m train: --config=FILE:VARIANT --workdir=DIR ..."
}

# Words as a POSIX shell reads them back, whatever they hold.
quoted() {
  local word out='' quote="'\\''"
  for word in "$@"; do
    case $word in
      '' | *[!A-Za-z0-9_./:=,@%+-]*) word="'${word//\'/$quote}'" ;;
    esac
    out+="${out:+ }$word"
  done
  printf '%s' "$out"
}

# Runs a command; with --dry-run prints it.
run() {
  if [ "$dry_run" = 1 ]; then
    quoted "$@"
    echo
  else
    "$@"
  fi
}

# join PID: its code, as $joined, also where a signal interrupts the waiting; traps count $signals.
signals=0 joined=0
join() {
  local before code
  joined=127
  while :; do
    before=$signals
    wait "$1" && code=0 || code=$?
    [ "$code" = 127 ] || joined=$code # 127: its end was seen already
    [ "$before" != "$signals" ] || return 0
  done
}

# Whether a run that ended with this code is to be restarted: it was preempted, it hung
# (another host is gone), a signal killed it (128 + signal; JAX aborts so when it loses a host),
# or the connection broke (255). Other codes are final: somebody pressed Ctrl-C (130), or what the
# message says has to change.
again() {
  [ "$1" = "$PREEMPTED" ] || [ "$1" = "$HUNG" ] || { [ "$1" -ge 128 ] && [ "$1" != 130 ]; }
}
