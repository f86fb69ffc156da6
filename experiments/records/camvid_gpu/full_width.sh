#!/usr/bin/env bash
# FCN-8s at the paper's width on CamVid at 360 x 480, on a GPU: train, val, test once.
#   SEGJAX_DATA=DIR bash experiments/records/camvid_gpu/full_width.sh "NAME OF THE GPU"
set -euo pipefail
cd "$(dirname "$0")/../../.."
work=runs/fcn8s-camvid-full
flags=(
  --config=fcn8s:camvid
  --config.dtype=bfloat16 --config.batch_size=16 --config.total_steps="${STEPS:-6000}"
)
python -m segjax.main "${flags[@]}" --workdir="$work"
python -m segjax.evaluate --workdir="$work" --split=val --step=best
python -m segjax.evaluate --workdir="$work" --split=test --step=best
python -m experiments.records.run_page --workdir="$work" --output=experiments/records/camvid_full \
  --command="python -m segjax.main ${flags[*]}" --hardware="${1:?name the GPU}"
