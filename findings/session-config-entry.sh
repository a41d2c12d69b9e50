#!/usr/bin/env bash
# A guess: get_session_config_entry gives a setting's default where none is set, and a misspelt setting is refused.
# What happens: it is the other way round. Asking for a known setting with a default raises RuntimeError until somebody
# sets it, and setting a key that does not exist is accepted without a word. Seen with onnxruntime 1.32.0.
# Who records the settings beside a benchmark of pruned models, or misspells one of them, meets it.
# What to do: keep your own table of keys and defaults, and write keys as constants.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    onnxruntime==1.32.0 || { echo "not run: the packages did not install"; exit 2; }

export OMP_WAIT_POLICY=passive
venv/bin/python -I -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import onnxruntime as ort


def expect(holds, what):
    if not holds:
        print("changed:", what)
        sys.exit(1)


print(*(f"{name} {version(name)}" for name in ("onnxruntime",)), sep=", ")
options = ort.SessionOptions()
known, unknown = "session.intra_op.allow_spinning", "session.intra_op.allow_spining"
try:
    message = f"gives {options.get_session_config_entry(known)}"
except RuntimeError as error:
    message = str(error)
print(f"asked for {known}, which is 1 unless set: {message}")
expect("does not have configuration" in message, "a known setting that is not set has a value")
try:
    options.add_session_config_entry(unknown, "0")
except Exception as error:
    expect(False, f"a misspelt setting is refused: {error}")
print(f"set {unknown}, which does not exist: accepted, reads back as", options.get_session_config_entry(unknown))
PYTHON
