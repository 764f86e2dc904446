#!/usr/bin/env bash
# Do the core tests pass with other versions? Makes a scratch environment, runs them in it, and deletes it.
#
#     tools/try_versions.sh TORCH TORCHVISION NUMPY [PYTHON] [PIN ...]
#     tools/try_versions.sh 2.1.0 0.16.0 1.26.4 python3.10 pillow==10.0.0
#
# PYTHON (default python3.11) is the interpreter, each PIN one more requirement; all else is the newest that
# pyproject.toml and those allow. Downloads about 3 GB and needs about 6 GB in TMPDIR. TESTS names other tests than the
# core, KEEP=1 keeps the environment, DETECTRON2=FOLDER puts a checkout of Detectron2 first.
set -euo pipefail
if [ $# -lt 3 ]; then
    sed -n '4,5s/^# *//p' "$0" >&2
    exit 2
fi
torch=$1 torchvision=$2 numpy=$3 python=${4:-python3.11}
root=$(cd "$(dirname "$0")/.." && pwd)
core="tests/layers tests/modeling/test_meta_arch.py tests/modeling/test_discriminators.py tests/modeling/test_losses.py
    tests/modeling/test_regularizers.py tests/modeling/test_any_head.py tests/engine/test_checkpoint.py
    tests/engine/test_image_loop.py tests/engine/test_layout.py tests/engine/test_steps.py tests/engine/test_trainer.py
    tests/engine/test_train_loader.py tests/engine/test_rng.py tests/evaluation tests/test_config.py"

scratch=$(mktemp -d)
[ -n "${KEEP:-}" ] || trap 'rm -rf "$scratch"' EXIT
"$python" -m venv "$scratch/venv"
bin=$scratch/venv/bin
# pyproject.toml's ranges choose the rest; a build of torch that is marked +cpu does not work with PyPI's torchvision
"$bin/python" -m pip install -q "torch==$torch" "torchvision==$torchvision" "numpy==$numpy" "${@:5}" \
    -e "$root[test,images,backbones]"
"$bin/python" "$root/tools/install_detectron2.py"
"$bin/python" -c 'import sys, torch, torchvision, numpy, detectron2
print("Python", sys.version.split()[0], "torch", torch.__version__, "torchvision", torchvision.__version__,
      "numpy", numpy.__version__, "Detectron2", detectron2.__path__[0])'
cd "$root"
# shellcheck disable=SC2086  # several words
OMP_NUM_THREADS=1 PYTHONPATH=${DETECTRON2:-} "$bin/python" -m pytest -q -p no:cacheprovider \
    --basetemp "$scratch/tests" ${TESTS:-$core}
