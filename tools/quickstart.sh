#!/usr/bin/env bash
# From a fresh clone to a distilled multi-exit student, on the built-in digits.
# Safe to repeat: finished runs are reused.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/environment.sh
environment

export TF_CPP_MIN_LOG_LEVEL=2
quiet() { # TensorFlow tells of missing GPUs and processor features on every start
  grep -v -e '^[IWE]0000' -e '^WARNING: All log' -e '^To enable the following' >&2 || true
}

runs=runs/digits
for name in student mskd oto; do
  "$PYTHON" -m tf_mskd.train --flagfile="configs/digits/$name.flags" \
    --run_dir="$runs/$name" 2> >(quiet)
done
echo
"$PYTHON" -m tf_mskd.report --output="$runs/report" \
  --run_dirs="$runs/teacher,$runs/student,$runs/mskd,$runs/oto" \
  2> >(quiet)
echo "run folders: $runs/teacher $runs/student $runs/mskd $runs/oto"
