"""Many boxes: the same application as replicas of Ray Serve, whose portfolio is exchanged in place.

`onnx_shift.serving.ray:build` is the `import_path` of a Serve configuration; its arguments are those of `Replica`, and
its `user_config` is `{"portfolio": PATH}`.
"""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_shift.errors import OnnxShiftError
from onnx_shift.runtime.policies import chosen_policy
from onnx_shift.serving.app import App
from onnx_shift.serving.service import Service
from onnx_shift.serving.settings import Limits, Settings

if TYPE_CHECKING:
    from ray.serve import Application

_CLOSE_S = 30.0
_log = logging.getLogger("ray.serve")
_apps: list[App] = []  # of this process: Ray runs each replica in one of its own


class Replica:
    """One copy of the service. `name` is the model's, by default the file's without .zip; `p95_ms` and `policy` are as
    in the command `serve`, `limits` fields of `Limits`, `settings` further fields of `Settings`.
    """

    def __init__(
        self,
        portfolio: str,
        name: str | None = None,
        *,
        p95_ms: float | None = None,
        policy: str | None = None,
        limits: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self._service = Service(
            Settings(Path(portfolio), name or Path(portfolio).stem, limits=Limits(**(limits or {})), **settings),
            chosen_policy(policy, p95_ms),
        )
        _apps[:] = [App(self._service)]

    async def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Exchange the portfolio for the one at `config["portfolio"]`, or for what its file holds now.

        Never raises, as Ray would take this replica away: what is refused is logged and counted, and the old portfolio
        serves on.
        """
        try:
            path = config.get("portfolio")
            sha256 = await asyncio.to_thread(self._service.update, None if path is None else Path(path))
        except Exception as error:  # noqa: BLE001 - whatever it is, the old one serves
            told = str(error) if isinstance(error, OnnxShiftError) else repr(error)
            _log.error("the new portfolio was refused, the old one still serves: %s", told)
        else:
            _log.info("serving the portfolio of SHA-256 %s", sha256)

    def __del__(self) -> None:
        if hasattr(self, "_service"):
            self._service.close(_CLOSE_S)


def application() -> App:
    """Return the application of the replica in this process."""
    return _apps[0]


def build(arguments: Mapping[str, Any]) -> "Application":
    """Return the Serve application whose replicas are made with `arguments`."""
    from ray import serve

    return serve.deployment(serve.ingress(application)(Replica), name="Portfolio").bind(**arguments)
