#!/usr/bin/env bash
# One run on several machines: sbatch --nodes 2 examples/slurm.sh RECIPE [--key value ...]
# Goes on from the last checkpoint, and queues itself again while the run is not finished.
#SBATCH --job-name=dualat
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=96
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
set -euo pipefail

recipe=$1
shift
output=runs/$recipe
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)

# Several machines: gloo and NCCL must use a network that joins them. Name it where the host's name leads elsewhere.
# export GLOO_SOCKET_IFNAME=ib0 NCCL_SOCKET_IFNAME=ib0

started=$(mktemp)
# Five minutes before the limit torchrun gets SIGTERM and passes it on: each process ends its training step, the first one
# writes a checkpoint, and torchrun ends with an error, which is none here. It kills them after 30 seconds, unless told
# otherwise (as --shutdown-timeout does; PyTorch before 2.12 knows neither).
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240
srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node 8 --max-restarts 3 \
    --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$first:29500" \
    -m dualat train "$recipe" --output "$output" --resume "$@" || true

# Again only where this job got further (it has written a checkpoint), is not finished (evaluation.json comes last), and has
# not diverged for good.
if [ "$output/checkpoints/latest.json" -nt "$started" ] && [ ! -s "$output/evaluation.json" ] &&
    ! grep -qs '"outcome": "diverged"' "$output/outcome.json"; then
    scontrol requeue "$SLURM_JOB_ID"
fi
