"""A stand-in for `sllm-store start` where there is no GPU: the store's own gRPC protocol for the folder STORE, with nothing behind it.

Run in ServerlessLLM's environment: `python store.py HOST:PORT STORE`. A model that is not there is not found; a load into a GPU is refused.
"""

from __future__ import annotations

import sys
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-not-found,import-untyped,unused-ignore]
from sllm_store.proto import storage_pb2 as messages  # type: ignore[import-not-found]
from sllm_store.proto import storage_pb2_grpc as service


class Store(service.StorageServicer):
    def __init__(self, root: Path) -> None:
        self.root = root

    def _size(self, path: str, context: Any) -> int:
        sizes = [file.stat().st_size for file in (self.root / path).rglob("*") if file.is_file()]
        if not sizes:
            context.abort(grpc.StatusCode.NOT_FOUND, f"{self.root / path}: no model")
        return sum(sizes)

    def GetServerConfig(self, request: Any, context: Any) -> Any:
        return messages.GetServerConfigResponse(mem_pool_size=1 << 30, chunk_size=32 << 20)

    def RegisterModel(self, request: Any, context: Any) -> Any:
        return messages.RegisterModelResponse(model_path=request.model_path, model_size=self._size(request.model_path, context))

    def LoadModelAsync(self, request: Any, context: Any) -> Any:
        self._size(request.model_path, context)
        if request.target_device_type != messages.DEVICE_TYPE_CPU:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "a stand-in store has no GPU")
        return messages.LoadModelResponse(model_path=request.model_path)

    def ConfirmModel(self, request: Any, context: Any) -> Any:
        return messages.ConfirmModelResponse(model_path=request.model_path)

    def UnloadModel(self, request: Any, context: Any) -> Any:
        return messages.UnloadModelResponse(model_path=request.model_path)

    def ClearMem(self, request: Any, context: Any) -> Any:
        return messages.ClearMemResponse()


if __name__ == "__main__":
    server = grpc.server(futures.ThreadPoolExecutor(4))
    service.add_StorageServicer_to_server(Store(Path(sys.argv[2])), server)
    server.add_insecure_port(sys.argv[1])
    server.start()
    server.wait_for_termination()
