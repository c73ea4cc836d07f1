"""ONNX Runtime's CUDA provider without a GPU: sessions that compute on the CPU what is bound on the stand-in device.

A call runs on the stream it was given, in order with what else is there, and the caller waits for it, as ONNX Runtime's
callers do.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import onnxruntime as ort

from .cuda import FakeCuda

PROVIDERS = ["CUDAExecutionProvider", "CPUExecutionProvider"]
REAL_SESSION = ort.InferenceSession


class CudaSession:
    """A session with the provider, as `onnxruntime.InferenceSession(model, options, providers=…)` makes it.

    Attributes:
        stream: the cudaStream_t it was told to use.
        settings: of the provider.
    """

    def __init__(self, cuda: FakeCuda, model: Any, options: Any, providers: list[Any]) -> None:
        (name, settings), *others = providers
        assert name == PROVIDERS[0] and others == PROVIDERS[1:]
        self.stream = int(settings["user_compute_stream"])
        self.settings = settings
        self.shapes: set[tuple[int, ...]] = set()  # of what it was given
        self._falls_back = True  # to the CPU, in silence, when a call fails
        self._cuda = cuda
        self._session = REAL_SESSION(model, options, providers=others)
        self.get_inputs, self.get_outputs = self._session.get_inputs, self._session.get_outputs

    def get_providers(self) -> list[str]:
        return PROVIDERS

    def disable_fallback(self) -> None:
        self._falls_back = False
        self._session.disable_fallback()

    def run(self, outputs: Any, inputs: dict[str, np.ndarray]) -> list[Any]:
        self.shapes |= {array.shape for name, array in inputs.items() if name == "mel"}
        results: list[Any] = []
        self._wait(lambda: results.extend(self._session.run(outputs, inputs)))
        return results

    def io_binding(self) -> Binding:
        return Binding(self._cuda)

    def run_with_iobinding(self, binding: Binding) -> None:
        self._wait(lambda: binding.compute(self._session))

    def _wait(self, work: Any) -> None:
        assert not self._falls_back, "a call that fails would move the session to the CPU for good"
        status = self._cuda.launch(self.stream, work)
        status = status or self._cuda.function("cudaStreamSynchronize")(ctypes.c_void_p(self.stream))
        if status:
            raise RuntimeError(f"CUDA failure {status}")


class Binding:
    def __init__(self, cuda: FakeCuda) -> None:
        self._cuda = cuda
        self._inputs: dict[str, tuple[Any, ...]] = {}
        self._outputs: dict[str, tuple[Any, ...]] = {}
        self._results: dict[str, Any] = {}

    def bind_input(self, name: str, device: str, index: int, dtype: Any, shape: Any, address: int) -> None:
        self._inputs[name] = (device, dtype, shape, address)

    def bind_output(
        self, name: str, device: str, index: int = 0, dtype: Any = None, shape: Any = None, address: int = 0
    ) -> None:
        self._outputs[name] = (device, dtype, shape, address)

    def compute(self, session: Any) -> None:
        inputs = {name: self._array(*bound) for name, bound in self._inputs.items()}
        for name, result in zip(self._outputs, session.run([*self._outputs], inputs), strict=True):
            device, dtype, shape, address = self._outputs[name]
            if address:
                self._array(device, dtype, shape, address)[...] = result
            self._results[name] = result

    def get_outputs(self) -> list[Any]:
        return [_Value(self._results[name]) for name in self._outputs]

    def _array(self, device: str, dtype: Any, shape: Any, address: int) -> np.ndarray:
        if device == "cuda":
            return self._cuda.contents(address, shape, dtype)
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if not count:
            return np.zeros(shape, dtype)
        return np.frombuffer((ctypes.c_char * count).from_address(address), dtype).reshape(shape)


class _Value:
    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def numpy(self) -> np.ndarray:
        return self._array
