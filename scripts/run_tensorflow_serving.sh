#!/usr/bin/env bash
# Serve the versions of an export directory with TensorFlow Serving in Docker. It takes each new version and drops the
# old one.
#
#   scripts/run_tensorflow_serving.sh EXPORT_DIR [MODEL_NAME] [REST_PORT]
#   scripts/run_tensorflow_serving.sh raccoons/export raccoon 8501
#
# Environment: TENSORFLOW_SERVING_IMAGE (default tensorflow/serving:latest; with -gpu it gets all GPUs),
#              DRY_RUN=1 prints the command instead of running it.
set -euo pipefail

usage() { sed -n '2,9s/^# \{0,1\}//p' "$0"; }

case "${1:-}" in
  "") usage >&2; exit 2 ;;
  -h | --help) usage; exit 0 ;;
esac

export_dir=$1
model_name=${2:-odkeras}
port=${3:-8501}
image=${TENSORFLOW_SERVING_IMAGE:-tensorflow/serving:latest}

[[ $model_name =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]*$ ]] || { echo "MODEL_NAME is '$model_name'; use letters, digits, _ . -" >&2; exit 2; }
if ! [[ $port =~ ^[0-9]+$ ]] || ((port < 1 || port > 65535)); then
  echo "REST_PORT is '$port'; it must be 1 to 65535" >&2; exit 2
fi
[ -z "${DRY_RUN:-}" ] && ! command -v docker >/dev/null 2>&1 && { echo "docker is not installed; or use: odkeras serve --model-name $model_name --model-base-path $export_dir --rest-api-port $port" >&2; exit 3; }
mkdir -p "$export_dir"  # else Docker makes it, as root

gpus=()
[[ $image == *-gpu* ]] && gpus=(--gpus all)

command=(docker run --rm --init --name "odkeras-serving-$model_name" ${gpus[@]+"${gpus[@]}"}
  --publish "127.0.0.1:$port:8501"
  --mount "type=bind,source=$(cd "$export_dir" && pwd),target=/models/$model_name,readonly"
  --env "MODEL_NAME=$model_name"
  "$image"
  --file_system_poll_wait_seconds=1)

[ -n "${DRY_RUN:-}" ] && { printf '%q ' "${command[@]}"; echo; exit 0; }
exec "${command[@]}"
