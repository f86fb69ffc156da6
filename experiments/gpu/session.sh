#!/usr/bin/env bash
# Measures segjax on one GPU, most wanted first, a line of JSON for each measurement:
#
#   experiments/gpu/session.sh OUTPUT [--tiny]
#
# OUTPUT is a folder. What its session.jsonl, or that of DONE=FILE, has already is not measured
# again, so that the next call goes on. SECONDS_LEFT (480) ends a call before the machine does; a
# measurement that takes longer than LONGEST (240) is stopped, and its line says so.
# WHEELS=FOLDER is where wheels lie that the machine lacks (grain, array_record, ml_collections,
# for its own Python); SITE=FOLDER is where they go. --tiny goes through the same on a CPU.
set -euo pipefail
cd "$(dirname "$0")/../.."

output=${1:?usage: session.sh OUTPUT [--tiny]}
tiny=${2:-}
until=$((SECONDS + ${SECONDS_LEFT:-480}))
longest=${LONGEST:-240}
done_before=${DONE:-$output/session.jsonl}
lines=$output/session.jsonl
python=${PYTHON:-python3}
mkdir -p "$output"

if [ -n "${WHEELS:-}" ]; then
  site=${SITE:-/tmp/site}
  "$python" -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$site" \
    "$WHEELS"/*.whl
  export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
fi
if [ -e "$done_before" ] && [ "$done_before" != "$lines" ]; then
  cp "$done_before" "$lines"
fi
touch "$lines"

measure=(-m experiments.benchmarks.gpu.measure)
for name in $("$python" "${measure[@]}" list); do
  if grep -q "\"name\": \"$name\"" "$lines"; then
    continue
  fi
  left=$((until - SECONDS))
  if [ "$left" -lt 30 ]; then
    echo "$left s are left: the next call goes on with $name."
    exit 0
  fi
  limit=$((left < longest ? left : longest))
  echo "$name: at most $limit s"
  # shellcheck disable=SC2086
  if found=$(timeout "$limit" "$python" "${measure[@]}" "$name" $tiny 2>>"$output/session.log"); then
    tail -n 1 <<<"$found" >>"$lines"
  elif [ "$limit" -eq "$longest" ]; then
    printf '{"name": "%s", "failed": true, "limit_seconds": %d}\n' "$name" "$limit" >>"$lines"
  else
    echo "$name did not end in the time that was left, or failed: see $output/session.log."
  fi
  tail -n 1 "$lines"
done
echo "All is measured: $lines"
