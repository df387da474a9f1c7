#!/usr/bin/env bash
# Trains with N processes on this machine, as a cluster would with N machines:
#
#   launch/local.sh 2 --config=configs/toy.py
#
# After a failure, or exit code 75 (told to stop, and saved), all of them start
# again from the last checkpoint; three failures in a row without a new
# checkpoint are the end, and so is a first exit code 2, a mistake of the user.
# SIGTERM and Ctrl-C stop the run for good: it saves first. A second one does
# not wait for that.
#
# On a machine without GPUs the processes share DEVICES fake ones (N by
# default); on one with GPUs each has its part of them. PYTHON is the
# interpreter: that of .venv, if there is one.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

count=${1:-}
if ! [[ $count =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: launch/local.sh N --config=configs/NAME.py [flags]" >&2
  exit 2
fi
shift
python=${PYTHON:-python3}
[[ -z ${PYTHON:-} && -x .venv/bin/python ]] && python=.venv/bin/python

workdir='' config=''
for flag in "$@"; do
  case $flag in
    --workdir=*) workdir=${flag#*=} ;;
    --config=*) config=${flag#*=} ;;
    --workdir | --config)
      echo "write $flag=... in one word" >&2
      exit 2
      ;;
  esac
done
if [[ -z $workdir ]]; then
  workdir=$("$python" -c "
import sys
from kaleido_jax import main
print(main.default_workdir(sys.argv[1]))" "$config") || exit
fi
mkdir -p "$workdir" || exit

gpus=0
if command -v nvidia-smi >/dev/null; then
  gpus=$(nvidia-smi -L | grep -c '^GPU')
fi
if ((gpus > 0 && gpus % count)); then
  echo "$gpus GPUs cannot be dealt out to $count processes" >&2
  exit 2
fi

pids=()
told='' # by whom the run was stopped for good

# What only process $1 has: its devices.
devices() {
  if ((gpus > 0)); then
    local share=$((gpus / count))
    export CUDA_VISIBLE_DEVICES
    CUDA_VISIBLE_DEVICES=$(seq -s, $(($1 * share)) $(($1 * share + share - 1)))
  else
    export JAX_NUM_CPU_DEVICES=$((${DEVICES:-$count} / count))
  fi
}

start() {
  local port
  port=$("$python" -c "
import socket
print(socket.create_server(('localhost', 0)).getsockname()[1])")
  pids=()
  for ((i = 0; i < count; i++)); do
    local log=$workdir/process-$i.txt
    echo "== $(date '+%F %T'), start $starts" >>"$log"
    (
      devices "$i"
      exec "$python" -m kaleido_jax.main "$@" --coordinator="localhost:$port" \
        --num_processes="$count" --process_id="$i"
    ) >>"$log" 2>&1 &
    pids+=($!)
    echo "process $i: pid $!, log $log"
  done
}

pass_on() {
  if [[ $told ]]; then
    kill -KILL "${pids[@]}" 2>/dev/null
    return
  fi
  told=$1
  echo "$1: the run saves and ends"
  # As SIGTERM: what a shell starts in the background ignores SIGINT.
  kill -TERM "${pids[@]}" 2>/dev/null
}
trap 'pass_on SIGTERM' TERM
trap 'pass_on SIGINT' INT

# Waits until all have ended. Who is left of a broken run ends by itself within
# a minute; after two it is helped.
wait_for_all() {
  local since=''
  codes=()
  while [[ $(jobs -rp) ]]; do
    if [[ $(jobs -rp | wc -l) -lt $count ]]; then
      since=${since:-$SECONDS}
      if ((SECONDS - since > 120)); then
        # shellcheck disable=SC2046  # one word each
        kill -KILL $(jobs -rp) 2>/dev/null
      fi
    fi
    sleep 0.2
  done
  for pid in "${pids[@]}"; do
    wait "$pid"
    codes+=($?)
  done
}

last_checkpoint() {
  find "$workdir/checkpoints" -maxdepth 1 -name '[0-9]*' 2>/dev/null |
    sed 's|.*/||' | grep -E '^[0-9]+$' | sort -n | tail -n 1
}

failures=0 starts=0
while true; do
  [[ $told ]] && exit 75 # told between two starts
  before=$(last_checkpoint)
  starts=$((starts + 1))
  start "$@"
  [[ $told ]] && kill -TERM "${pids[@]}" 2>/dev/null
  wait_for_all
  worst=0
  for code in "${codes[@]}"; do
    # 76 is who ended because of another one: the other's code says more.
    if ((code != 0 && (worst == 0 || worst == 76))); then worst=$code; fi
  done
  if ((worst == 0)); then
    exit 0
  fi
  echo "the processes ended with ${codes[*]}; see $workdir/process-*.txt"
  if [[ $told ]]; then
    exit "$worst"
  fi
  if ((worst == 2)) && [[ $(last_checkpoint) == "$before" ]]; then
    exit 2 # a mistake in what was asked for
  fi
  if ((worst != 75)) && [[ $(last_checkpoint) == "$before" ]]; then
    failures=$((failures + 1))
  else
    failures=0
  fi
  if ((failures == 3)); then
    echo "$failures failures in a row without a new checkpoint: giving up" >&2
    exit "$worst"
  fi
  echo "starting again from checkpoint $(last_checkpoint)"
  sleep 1
done
