#!/usr/bin/env bash
# Trains on a Cloud TPU pod slice, one process per host:
#
#   launch/tpu_pod.sh NAME ZONE --config=configs/imagenet.py --workdir=gs://BUCKET/run1
#
# Copies this repository to all hosts, installs it there, and starts it on all
# of them; jax finds the others through the TPU's metadata. Where the hosts'
# python3 is older than 3.11, uv brings a newer one. The workdir must be where all
# hosts can write: a bucket, or a disk that they share. After a failure it starts
# again from the last checkpoint; three failures within ten minutes each are the
# end. Ctrl-C or SIGTERM here let the run save and end.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

if (($# < 3)); then
  echo 'usage: launch/tpu_pod.sh NAME ZONE --config=... --workdir=...' >&2
  exit 2
fi
name=$1 zone=$2
shift 2

remote=(gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all)

archive=$(mktemp -d)/kaleido_jax.tar.gz
trap 'rm -rf "$(dirname "$archive")"' EXIT
git archive --format=tar.gz --output="$archive" HEAD || exit
gcloud compute tpus tpu-vm scp "$archive" "$name:kaleido_jax.tar.gz" \
  --zone="$zone" --worker=all || exit
"${remote[@]}" --command='mkdir -p kaleido_jax && cd kaleido_jax &&
  tar -xzf ../kaleido_jax.tar.gz &&
  if python3 -c "import sys, venv; sys.exit(sys.version_info < (3, 11))"; then
    python3 -m venv .venv
  else
    python3 -m pip install -q --user uv &&
      python3 -m uv venv -q --allow-existing --seed --python 3.12 .venv
  fi && .venv/bin/pip install -q -e ".[tpu,gcs]"' || exit

# Quoted once more, for the shell over there.
command="cd kaleido_jax && exec .venv/bin/python -m kaleido_jax.main$(printf ' %q' "$@")"

told=''
stop() {
  told=yes
  "${remote[@]}" --command='pkill -TERM -f kaleido_jax[.]main' || true
}
trap stop INT TERM

failures=0
while true; do
  [[ $told ]] && exit 75 # told between two starts
  started=$SECONDS
  # In a session of its own, or Ctrl-C would end ssh before the run has saved.
  setsid "${remote[@]}" --command="$command" </dev/null &
  gcloud=$!
  wait "$gcloud"
  code=$?
  while kill -0 "$gcloud" 2>/dev/null; do
    wait "$gcloud"
    code=$?
  done
  if ((code == 0)) || [[ $told ]]; then
    exit "$code"
  fi
  if ((SECONDS - started < 600)); then
    failures=$((failures + 1))
  else
    failures=0
  fi
  if ((failures == 3)); then
    echo 'three failures within ten minutes each: giving up' >&2
    exit "$code"
  fi
  echo "ended with $code: starting again from the last checkpoint"
  sleep "${PAUSE:-10}"
done
