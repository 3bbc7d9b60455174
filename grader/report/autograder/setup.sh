#!/usr/bin/env bash
# Makes the image of the autograder. Gradescope runs it once, as root, after it has unpacked the archive into source/.
#
# AUTOGRADER_ROOT    where Gradescope puts everything
# AUTOGRADER_PYTHON  an interpreter that has what the grader needs; nothing is installed then
set -euo pipefail

root=${AUTOGRADER_ROOT:-/autograder}
python=${AUTOGRADER_PYTHON:-$root/venv/bin/python}
cd "$root/source"
source ./settings.sh

if [ -z "${AUTOGRADER_PYTHON:-}" ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update
    apt-get install -y --no-install-recommends python3 python3-venv
    python3 -m venv "$root/venv" # outside of root's home: workers run as other users, who must be able to read it
    # Of the same version, that of an index of CPU wheels (2.15.0+cpu) goes before that of the ordinary index.
    "$python" -m pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
        -c grader/constraints.txt .
fi

"$python" -m grader doctor # into the log of the build: what stands between a submission and the grader
