import sys
from pathlib import Path

from onnx_shift.serving.server import serve
from onnx_shift.serving.settings import Settings

p = Path(sys.argv[1])
serve(
    Settings(p, p.stem, port=int(sys.argv[2]), access_log="log" in sys.argv, allow_load=True),
    None,
    lambda url: print(url, flush=True),
)
