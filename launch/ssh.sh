#!/usr/bin/env bash
# Trains on a list of machines that SSH reaches, one process on each.
#
#   launch/ssh.sh --hosts=a,b,c [--directory=DIR] [--python=.venv/bin/python] [--port=12355]
#       [--attempts=20] [--pause=10] [--grace=120] [--dry-run] -- --config=... --workdir=...
#
# Each machine has the same checkout at DIR (the present folder by default), with an environment
# (`bash launch/setup.sh cuda`), and sees the same --workdir: a network file system or an object
# store. Keys must allow `ssh HOST` without a prompt. The first host is the coordinator; the
# others reach its port. OPTIONS for ssh go into ~/.ssh/config, or in SSH_OPTIONS.
#
# If a host ends with an error, the others are stopped (SIGTERM, --grace seconds later SIGKILL). If
# one ends because it was preempted, the others have --grace seconds to end by themselves.
# The first to fail decides: codes 75 (preempted) and 76 (hung), a signal or a lost connection restart
# all hosts, --pause seconds later and at most --attempts times; any other code is final.
# SIGTERM or Ctrl-C here stops all hosts, which save first. If this script itself is killed, or a
# connection lost, the hosts notice (their standard input ends), save and stop.

set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "$0")/common.sh"

hosts='' directory=$PWD python=.venv/bin/python port=12355
attempts=$ATTEMPTS pause=10 grace=120 dry_run=0
while [ $# -gt 0 ]; do
  case $1 in
    --hosts=*) hosts=${1#*=} ;;
    --directory=*) directory=${1#*=} ;;
    --python=*) python=${1#*=} ;;
    --port=*) port=${1#*=} ;;
    --attempts=*) attempts=${1#*=} ;;
    --pause=*) pause=${1#*=} ;;
    --grace=*) grace=${1#*=} ;;
    --dry-run) dry_run=1 ;;
    --help) help "$0" ;;
    --) shift && break ;;
    *) die "unknown option $1; see $0 --help" ;;
  esac
  shift
done
need_value --hosts "$hosts" a,b,c
need_count --port "$port"
need_count --attempts "$attempts"
need_seconds --pause "$pause"
need_seconds --grace "$grace"
check_words "$@"
IFS=, read -r -a host_list <<<"$hosts"
count=${#host_list[@]}
address=${host_list[0]#*@} # USER@HOST: without the user
run=$(printf '%s\n' "$@" | grep '^--workdir=' | cksum | cut -d' ' -f1) # one life at a time
# A host that no longer answers is lost after a minute.
ssh_words=(ssh -o BatchMode=yes -o ServerAliveInterval=15 -o ServerAliveCountMax=4)
[ -z "${SSH_OPTIONS:-}" ] || read -r -a options <<<"$SSH_OPTIONS"
ssh_words+=(${options[@]+"${options[@]}"})

# remote INDEX WORDS: what a host runs. Its standard input stays open as long as this script wants
# it to train.
remote() {
  local index=$1
  shift
  echo "cd $(quoted "$directory") && exec bash $(quoted launch/host.sh "--key=$run-$index" \
    --leash "--grace=$grace" -- "$python" -m train "$@" \
    "--coordinator=$address:$port" "--processes=$count" "--process=$index")"
}

if [ "$dry_run" = 1 ]; then
  for index in "${!host_list[@]}"; do
    run "${ssh_words[@]}" "${host_list[$index]}" "$(remote "$index" "$@")"
  done
  exit 0
fi
need ssh "install OpenSSH's client"

folder=$(mktemp -d)
stopped=0
trap 'rm -rf "$folder"' EXIT
trap 'stopped=1' TERM INT HUP

# Starts host INDEX in the background; its end is a line "INDEX CODE" in $folder/ended, in the
# order in which hosts end.
start() {
  local index=$1
  shift
  (
    set +e
    # The leash's writing end (9) must be in no other process, or closing it here ends nothing.
    "${ssh_words[@]}" "${host_list[$index]}" "$(remote "$index" "$@")" <"$folder/leash" 9>&- &
    echo $! >"$folder/$index.pid"
    wait $!
    echo "$index $?" >>"$folder/ended"
  ) 9>&- &
}

# Waits for all hosts; stops the rest at the first failure, or when this script is told to. Those of
# a run that was preempted have agreed to stop, and are saving: they are given time first.
watch() {
  local told=0 deadline='' index
  while [ "$(wc -l <"$folder/ended")" -lt "$count" ]; do
    if [ $told = 0 ] && { [ $stopped = 1 ] || grep -qv " \(0\|$PREEMPTED\)$" "$folder/ended"; }; then
      deadline=$SECONDS
    elif [ -z "$deadline" ] && grep -q " $PREEMPTED$" "$folder/ended"; then
      deadline=$((SECONDS + grace))
    fi
    if [ -n "$deadline" ] && [ "$SECONDS" -ge "$deadline" ]; then
      if [ $told = 0 ]; then
        exec 9>&- # the leash: every host's standard input ends
        told=1 deadline=$((SECONDS + grace + 30))
      else
        for index in "${!host_list[@]}"; do
          grep -q "^$index " "$folder/ended" || give_up "$index"
        done
      fi
    fi
    sleep 0.2 &
    wait $! || true # interrupted by a signal
  done
  exec 9>&-
}

# Lets go of a host that did not stop in time: its connection ends, and counts as lost.
give_up() {
  say "host ${host_list[$1]} did not stop within $((grace + 30)) s; closing its connection"
  echo "$1 255" >>"$folder/ended"
  kill -KILL "$(cat "$folder/$1.pid")" || true
}

for ((attempt = 1; ; attempt++)); do
  rm -f "$folder/leash"
  mkfifo "$folder/leash"
  : >"$folder/ended"
  exec 9<>"$folder/leash"
  for index in "${!host_list[@]}"; do start "$index" "$@"; done
  watch
  read -r index code < <(grep -v ' 0$' "$folder/ended" || echo "0 0")
  [ "$code" != 0 ] || exit 0
  said="host ${host_list[$index]} (process $index) ended first, with code $code"
  if [ $stopped = 1 ]; then
    say "stopped; $said"
    exit "$code"
  elif ! again "$code"; then
    say "$said: see its message. Not restarted"
    exit "$code"
  elif [ "$attempt" -ge "$attempts" ]; then
    say "$said; that was the last of $attempts attempts"
    exit "$code"
  fi
  say "$said; attempt $((attempt + 1)) of $attempts follows in $pause s"
  sleep "$pause" &
  wait $! || true
  [ $stopped = 0 ] || exit "$code"
done
