#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one go: kernels, tests, engines, and trainings where asked for.
#
#   benchmarks/gpu/run.sh OUT [--size N|WxH] [--tile N] [--batch N] [--model ONNX]
#                             [--train CONFIG]... [--ablation DATA] [--set KEY=VALUE]...
#                             [--only PART]... [--dry-run]
#
# Needs a Python ($PYTHON, python3 by default) with PyTorch and what pyproject.toml names for the parts
# that shall run; nothing is downloaded. Parts: build, tests, engines, train, ablation. One that fails does not
# stop the others; the end says which did, with exit code 1. Without a GPU only the build is done. A
# training that was cut short goes on where it was. OUT keeps a log for each part, figures as JSON, and
# tables.
set -uo pipefail

usage() { sed -n '2,13s/^# \{0,1\}//p' "$0"; exit "$1"; }
wanted() { [[ $# -ge 2 ]] || { echo "$1: wanted a value" >&2; exit 2; }; }

out='' dry='' trainings=() settings=() only=() options=() model=() ablation=''
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) usage 0 ;;
    --dry-run) dry=yes ;;
    --size | --tile | --batch) wanted "$@"; options+=("$1" "$2"); shift ;;
    --model) wanted "$@"; model=("$1" "$(realpath "$2")"); shift ;;
    --ablation) wanted "$@"; ablation=$(realpath "$2"); shift ;;
    --train) wanted "$@"; trainings+=("$2"); shift ;;
    --set) wanted "$@"; settings+=("$1" "$2"); shift ;;
    --only) wanted "$@"; only+=("$2"); shift ;;
    -*) echo "$1: no such option" >&2; usage 2 >&2 ;;
    *) [[ -z $out ]] || { echo "$1: one folder is enough" >&2; exit 2; }; out=$1 ;;
  esac
  shift
done
[[ -n $out ]] || usage 2 >&2
out=$(mkdir -p "$out" && cd "$out" && pwd) || exit 1
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
python=${PYTHON:-python3} failed=()
gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1)
export PYTHONUNBUFFERED=1

chosen() {  # PART: is it asked for?
  [[ ${#only[@]} -eq 0 ]] || [[ " ${only[*]} " == *" $1 "* ]]
}

run() {  # NAME COMMAND...: run it, keep its output, remember a failure
  local name=$1; shift
  printf '\n== %s: %s\n' "$name" "$*"
  [[ -z $dry ]] || return 0
  "$@" 2>&1 | tee "$out/$name.log"
  local code=${PIPESTATUS[0]}
  [[ $code -eq 0 ]] || failed+=("$name (exit code $code, see $out/$name.log)")
  return "$code"
}

on_gpu() {  # NAME COMMAND...: the same where there is a GPU
  if [[ -n $gpu ]]; then run "$@"; else printf '\n== %s: skipped: no GPU\n' "$1"; fi
}

on_gpu machine nvidia-smi
chosen build &&
  run build "$python" -m pip install --quiet --no-index --no-build-isolation --no-deps --editable .
if chosen tests; then
  # Only files with such tests: others may need what is not installed here.
  mapfile -t files < <(grep -rl --include='test_*.py' 'mark\.gpu' tests)
  on_gpu tests "$python" -m pytest -m gpu -p no:cacheprovider "${files[@]}"
fi
if chosen engines; then
  for engine in tensorrt onnxruntime torch-{eager,compiled}-{fp16,bf16}; do
    on_gpu "$engine" "$python" benchmarks/gpu/engines.py run "$engine" --folder "$out" \
      "${model[@]}" "${options[@]}"
  done
  on_gpu engines "$python" benchmarks/gpu/engines.py table "$out"
fi
if chosen train; then
  for config in "${trainings[@]}"; do
    name=$(basename "$config" .yml) resume=()
    folder=$out/train/$name
    [[ ! -f $folder/last.pt ]] || resume=(--resume)
    on_gpu "train-$name" "$python" -m cellseg.train.cli "$config" "${settings[@]}" \
      --set "work_dir=$folder" --set accelerator=cuda "${resume[@]}" &&
      on_gpu "export-$name" "$python" -c 'from cellseg.export.cli import main; main()' "$folder/best.pt" \
        --fp16 --heads mask,boundary,density
  done
fi
if chosen ablation && [[ -n $ablation ]]; then
  on_gpu ablation "$python" benchmarks/ablation.py "$ablation" --out "$out/ablation" "${settings[@]}"
fi
rm -f "$out"/slide_*.tif

if [[ ${#failed[@]} -gt 0 ]]; then
  printf '\nfailed:\n'
  printf '  %s\n' "${failed[@]}"
  exit 1
fi
printf '\nall is well: %s\n' "$out"
