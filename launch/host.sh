#!/usr/bin/env bash
# What ssh.sh and tpu_pod.sh run on each host, in the checkout: a training that still saves when the
# launcher or the connection to it is gone, and of which only one runs at a time.
#
#   bash launch/host.sh --key=NAME [--leash] [--grace=120] [--wait=300] -- COMMAND ...
#   bash launch/host.sh --key=NAME --stop          asks it to stop (SIGTERM)
#
# It waits up to --wait seconds for an earlier command of the same key on this machine (one whose
# connection broke, say: two processes must not write one run). With --leash it is asked to stop
# when standard input ends, and killed --grace seconds later. Output that nobody reads any more is
# dropped, where the command would otherwise fail at its next line.

set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "$0")/common.sh"

key='' leash=0 grace=120 patience=300 stop=0
while [ $# -gt 0 ]; do
  case $1 in
    --key=*) key=${1#*=} ;;
    --leash) leash=1 ;;
    --grace=*) grace=${1#*=} ;;
    --wait=*) patience=${1#*=} ;;
    --stop) stop=1 ;;
    --help) help "$0" ;;
    --) shift && break ;;
    *) die "unknown option $1; see $0 --help" ;;
  esac
  shift
done
need_value --key "$key" run-a
note=${TMPDIR:-/tmp}/perceiver-$(id -u)-$key
if [ $stop = 1 ]; then
  [ ! -s "$note.pid" ] || kill -TERM "$(cat "$note.pid")" 2>/dev/null || true
  exit 0
fi
need "$1" "bash launch/setup.sh makes the environment"

exec 9>"$note.lock"
if command -v flock >/dev/null && ! flock --wait "$patience" 9; then
  say "an earlier training ($(cat "$note.pid")) is still running on $(hostname) after $patience s"
  exit "$HUNG"
fi

forward() { # the end of a pipe that never breaks
  trap '' PIPE TERM INT HUP
  exec 9>&-
  cat 2>/dev/null || cat >/dev/null
}

exec 3<&0
"$@" </dev/null 3<&- > >(forward 3<&-) 2> >(forward 3<&- >&2) &
child=$!
echo "$child" >"$note.pid"
trap 'signals=$((signals + 1)); kill -TERM "$child" || true' TERM INT HUP
watcher=''
if [ $leash = 1 ]; then
  {
    cat <&3
    kill -TERM "$child"
    sleep "$grace"
    kill -KILL "$child"
  } >/dev/null 2>&1 9>&- &
  watcher=$!
fi
exec 3<&-
join "$child"
[ -z "$watcher" ] || kill "$watcher" 2>/dev/null || true
rm -f "$note.pid"
exit "$joined"
