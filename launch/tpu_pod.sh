#!/usr/bin/env bash
# Trains on a Cloud TPU slice: requests it, sets it up, trains, restarts after a preemption, deletes
# it. ACTION is one of these steps, or `all`:
#
#   launch/tpu_pod.sh create|setup|train|stop|delete|all --name=NAME --zone=ZONE
#       --type=v5litepod-64 --runtime=v2-alpha-tpuv5-lite [--project=PROJECT] [--nodes=1] [--spot]
#       [--revision=HEAD] [--directory=perceiver] [--attempts=20] [--pause=30] [--keep] [--dry-run]
#       -- --config=... --workdir=gs://BUCKET/RUN
#
# The code is `git archive` of --revision: uncommitted changes are not included. --nodes above 1
# requests several slices as one queued resource (named NAME-0, NAME-1, ...). JAX discovers the
# processes itself. --workdir must be on object storage: the machines do not outlive the slice.
#
# Code 75 (preempted), 76 (hung), a signal or a lost connection restart the training; if the slice
# itself is gone, it is requested again. At most --attempts starts. Other codes are final.
# The slice is deleted at the end of `all`, unless --keep. Ctrl-C or SIGTERM here stops the training
# (it saves) and leaves the slice: `stop` and `delete` are commands too.

set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "$0")/common.sh"

action=${1:-}
[ $# -eq 0 ] || shift
name='' zone='' project='' type='' runtime='' nodes=1 spot=0 revision=HEAD directory=perceiver
attempts=$ATTEMPTS pause=30 keep=0 dry_run=0
while [ $# -gt 0 ]; do
  case $1 in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --runtime=*) runtime=${1#*=} ;;
    --nodes=*) nodes=${1#*=} ;;
    --spot) spot=1 ;;
    --revision=*) revision=${1#*=} ;;
    --directory=*) directory=${1#*=} ;;
    --attempts=*) attempts=${1#*=} ;;
    --pause=*) pause=${1#*=} ;;
    --keep) keep=1 ;;
    --dry-run) dry_run=1 ;;
    --) shift && break ;;
    *) die "unknown option $1; see $0 --help" ;;
  esac
  shift
done
case $action in
  create | setup | train | stop | delete | all) ;;
  --help) help "$0" ;;
  *) die "ACTION must be create, setup, train, stop, delete or all; see $0 --help" ;;
esac
need_value --name "$name" perceiver
need_value --zone "$zone" us-central1-a
need_count --nodes "$nodes"
need_count --attempts "$attempts"
need_seconds --pause "$pause"
case $action in create | all)
  need_value --type "$type" v5litepod-64
  need_value --runtime "$runtime" v2-alpha-tpuv5-lite
esac
case $action in train | all) check_words "$@" ;; esac
case $action in setup | train | all)
  need git "the code travels as git archive"
  commit=$(git -C "$(dirname "$0")/.." rev-parse --verify --quiet "$revision^{commit}") ||
    die "--revision=$revision is not a commit of this checkout"
esac
[ $dry_run = 1 ] || need gcloud "install the Google Cloud CLI"

place=("--zone=$zone" ${project:+"--project=$project"})
slices=("$name")
if [ "$nodes" -gt 1 ]; then
  slices=()
  for ((i = 0; i < nodes; i++)); do slices+=("$name-$i"); done
fi

create() {
  local node=("--node-id=$name") cheap=()
  [ "$nodes" = 1 ] || node=("--node-count=$nodes" "--node-prefix=$name")
  [ $spot = 0 ] || cheap=(--spot)
  run gcloud compute tpus queued-resources create "$name" "${place[@]}" "${node[@]}" \
    "--accelerator-type=$type" "--runtime-version=$runtime" ${cheap[@]+"${cheap[@]}"} || return
  await_active
}

# ACTIVE, ... as gcloud says; GONE where there is none; UNKNOWN where gcloud did not say, which is no
# reason to give up a slice.
state() {
  local errors answer
  errors=$(mktemp)
  if answer=$(gcloud compute tpus queued-resources describe "$name" "${place[@]}" \
    '--format=value(state.state)' 2>"$errors"); then
    echo "${answer:-UNKNOWN}"
  elif grep -qi 'not.found' "$errors"; then
    echo GONE
  else
    cat "$errors" >&2
    echo UNKNOWN
  fi
  rm -f "$errors"
}

is_lost() { case $1 in FAILED | SUSPENDED | SUSPENDING | DELETING | GONE) ;; *) return 1 ;; esac; }

await_active() {
  if [ $dry_run = 1 ]; then
    run gcloud compute tpus queued-resources describe "$name" "${place[@]}" \
      '--format=value(state.state)'
    return
  fi
  local now before=''
  while :; do
    now=$(state)
    [ "$now" = "$before" ] || say "$name: $now"
    before=$now
    [ "$now" != ACTIVE ] || return 0
    ! is_lost "$now" || die "$name is $now and will not become ACTIVE; delete it, and look at" \
      "gcloud compute tpus queued-resources describe $name --zone=$zone"
    rest "$pause"
    [ $stopping = 0 ] || exit 143
  done
}

# everywhere COMMAND: runs it on all machines of all slices; returns a code that is not 0, if any.
everywhere() {
  local slice code=0 pids=() one
  for slice in "${slices[@]}"; do
    if [ $dry_run = 1 ]; then
      run gcloud compute tpus tpu-vm ssh "$slice" "${place[@]}" --worker=all "--command=$1"
    else
      gcloud compute tpus tpu-vm ssh "$slice" "${place[@]}" --worker=all "--command=$1" &
      pids+=($!)
    fi
  done
  for one in ${pids[@]+"${pids[@]}"}; do
    join "$one"
    [ $code != 0 ] || code=$joined
  done
  return "$code"
}

setup() {
  local folder slice
  folder=$(mktemp -d)
  run git -C "$(dirname "$0")/.." archive --format=tar.gz \
    "--output=$folder/code.tar.gz" "$commit" || return
  for slice in "${slices[@]}"; do
    run gcloud compute tpus tpu-vm scp "$folder/code.tar.gz" "$slice:$directory.tar.gz" \
      "${place[@]}" --worker=all || return
  done
  rm -rf "$folder"
  local there
  there=$(quoted "$directory")
  everywhere "mkdir -p $there && tar -xzf $there.tar.gz -C $there && bash $there/launch/setup.sh tpu"
}

train() {
  everywhere "cd $(quoted "$directory") && export PERCEIVER_REVISION=$commit && exec bash $(quoted \
    launch/host.sh --key=tpu -- .venv/bin/python -m train "$@")"
}

stop() { everywhere "cd $(quoted "$directory") && bash launch/host.sh --key=tpu --stop"; }

delete() { run gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet; }

# All steps: until the run is complete, an error is final, or the attempts are used up.
train_again_and_again() {
  local attempt code now
  for ((attempt = 1; ; attempt++)); do
    train "$@" && code=0 || code=$?
    [ "$code" != 0 ] || return 0
    [ $stopping = 0 ] || return "$code"
    say "attempt $attempt of $attempts ended with code $code"
    [ "$attempt" -lt "$attempts" ] || return "$code"
    now=$(state)
    if ! is_lost "$now"; then
      again "$code" || return "$code"
      rest "$pause"
    else # the machines went away under the run, whatever the code
      say "$name is $now"
      [ "$action" = all ] || return "$code"
      [ "$now" = GONE ] || delete || true
      { create && setup; } || return
    fi
    [ $stopping = 0 ] || return "$code"
  done
}

stopping=0
interrupted() {
  signals=$((signals + 1))
  [ $stopping = 0 ] || return 0
  stopping=1
  say "stopping the training; $name stays: $0 delete --name=$name --zone=$zone"
  case $action in train | all) stop || true ;; *) exit 143 ;; esac
}
trap interrupted TERM INT

rest() {
  sleep "$1" &
  wait $! || true
}

case $action in
  create) create ;;
  setup) setup ;;
  train) if [ $dry_run = 1 ]; then train "$@"; else train_again_and_again "$@"; fi ;;
  stop) stop ;;
  delete) delete ;;
  all)
    create
    setup
    if [ $dry_run = 1 ]; then train "$@"; else
      train_again_and_again "$@" && code=0 || code=$?
      [ $stopping = 0 ] || exit "$code"
      [ "$code" = 0 ] || say "ended with code $code"
    fi
    if [ $keep = 1 ]; then say "$name stays (--keep)"; else delete; fi
    exit "${code:-0}"
    ;;
esac
