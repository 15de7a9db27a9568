#!/usr/bin/env bash
# The benchmark on an accelerator: training step and sampling of three networks against the textbook loop.
#
#     bash benchmarks/accelerator.sh                    # all three, one JSON file each
#     bash benchmarks/accelerator.sh wrn                # one of them: wrn, resnet, convnext
#
# PYTHON: interpreter (python3). RESULTS: folder for the files (benchmarks/results). DEVICE: cuda, cuda:1 ...
# ARGS: more arguments of `dualat bench`, as in ARGS="--repeats 3". Needs no installation of dualat and no network; the
# packages that it needs beside PyTorch's are named in benchmarks/README.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python3}
RESULTS=${RESULTS:-benchmarks/results}
DEVICE=${DEVICE:-cuda}
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1

read -ra MORE <<<"${ARGS:-}"
read -ra NETWORKS <<<"${*:-wrn resnet convnext}"
for network in "${NETWORKS[@]}"; do
    if [[ ! $network =~ ^(wrn|resnet|convnext)$ ]]; then
        echo "there is no network $network: give wrn, resnet or convnext" >&2
        exit 2
    fi
done
MACHINE=$("$PYTHON" -c 'import re, sys
try:
    from dualat.evaluation.throughput import device_name
    from dualat.precision import choose_device
    name = device_name(choose_device(sys.argv[1]))
except (ImportError, ValueError) as error:
    sys.exit(str(error))
print(re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"))' "$DEVICE")
mkdir -p "$RESULTS"

bench() { # NAME ARGUMENTS...
    local output=$RESULTS/$MACHINE-$1.json
    shift
    echo "==> $output"
    "$PYTHON" -m dualat bench --device "$DEVICE" --output "$output" --repeats 5 \
        --tasks train_step sampling data logging "$@" "${MORE[@]}"
}

imagenet=(--image-size 256 --classes 1000 --attack-steps 3 --eps 3)
for network in "${NETWORKS[@]}"; do
    case $network in
    wrn) bench wrn-34-10 --network wrn-34-10 --image-size 32 --batch-size 128 --steps 40 --attack-steps 10 --eps 0.5 ;;
    resnet) bench resnet50 --network timm/resnet50 "${imagenet[@]}" --batch-size 64 --steps 15 --precisions tf32 bf16 ;;
    convnext) # one precision alone: a network of this size takes its time to compile
        bench convnext-large-cvst --network convnext_large_cvst "${imagenet[@]}" --batch-size 16 --steps 36 \
            --precisions bf16 ;;
    esac
done
