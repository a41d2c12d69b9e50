"""A web service whose model follows the load: small while many ask, accurate while few do.

    pip install fastapi uvicorn
    PORTFOLIO=portfolio.zip uvicorn fastapi_app:app        # in this folder

    curl -X POST localhost:8000/predict -H "Content-Type: application/json" -d '{"inputs": {"input": [[…]]}}'

The endpoints are plain functions, so FastAPI calls them from its threads; the switcher is made for that.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException

from onnx_shift.runtime import LatencyObjective, ModelSwitcher, RunError

TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(uint8)": np.uint8}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the portfolio before the first request, and close it after the last."""
    with ModelSwitcher(os.environ["PORTFOLIO"], policy=LatencyObjective(p95_ms=50)) as model:
        app.state.model = model
        yield


app = FastAPI(title="onnx-shift", lifespan=lifespan)


@app.post("/predict")
def predict(request: dict[str, Any]) -> dict[str, Any]:
    """Answer with the outputs by name, and with the variant that serves."""
    model: ModelSwitcher = app.state.model
    try:
        feed = {
            value.name: np.asarray(request["inputs"][value.name], TYPES[value.type]) for value in model.get_inputs()
        }
        outputs = model.run(None, feed)
    except (KeyError, ValueError, RunError) as error:
        raise HTTPException(400, f"not what the model takes: {error}") from error
    names = [value.name for value in model.get_outputs()]
    answers = {name: output.tolist() for name, output in zip(names, outputs, strict=True)}
    return {"variant": model.active.name, "outputs": answers}


@app.get("/variants")
def variants() -> dict[str, Any]:
    """Which variants there are, smallest first, and which one serves."""
    model: ModelSwitcher = app.state.model
    return {"active": model.active.name, "variants": [variant.name for variant in model.portfolio.variants]}
