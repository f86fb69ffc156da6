#!/usr/bin/env bash
# Trains a recipe on a slice of Cloud TPUs, on all its hosts:
#
#     ./tpu.sh NAME ZONE FOLDER RECIPE
#
# NAME is a slice that was made with `gcloud compute tpus tpu-vm create`. Run it again after a
# preemption: the run goes on from the last checkpoint in FOLDER, which all hosts must see.
set -euo pipefail

if [ $# -ne 4 ]; then
  echo "usage: $0 NAME ZONE FOLDER RECIPE" >&2
  exit 2
fi
name=$1 zone=$2 folder=$3 recipe=$4

on_all_hosts() {
  gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}

wheel=$(ls segjax-*.whl)  # made by: pip wheel --no-deps .
gcloud compute tpus tpu-vm scp "$wheel" "$name:" --zone="$zone" --worker=all
on_all_hosts "python3 -m venv ~/segjax && ~/segjax/bin/pip install --quiet \"./${wheel}[tpu]\""

# JAX finds the other hosts of the slice by itself.
on_all_hosts "SEGJAX_DATA=$(printf %q "$folder/data") SEGJAX_CACHE=$(printf %q "$folder/cache") \
  ~/segjax/bin/segjax train --config=$(printf %q "$recipe") --workdir=$(printf %q "$folder/run")"
