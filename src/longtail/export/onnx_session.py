"""An ONNX model through onnxruntime, which is imported only where it is used."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longtail.device import threads
from longtail.errors import UserError


def require(*packages: str) -> None:
    """Say which packages are missing, before anything is computed.

    Raises:
        UserError: if one is.
    """
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        names = " ".join(missing)
        raise UserError(f"{', '.join(missing)}: not installed; `pip install {names}` or `make environment`")


def session(content: bytes, device: str, file: str | Path = "model.onnx") -> Any:
    """A session of onnxruntime, with OMP_NUM_THREADS threads (else 1), on "cpu" or "cuda".

    Raises:
        UserError: if a package is missing, the model is damaged or keeps tensors in other files, or
            this onnxruntime does not know the device.
    """
    require("onnx", "onnxruntime")
    import onnxruntime

    _refuse_other_files(content, file)
    providers = ["CPUExecutionProvider"]
    if device != "cpu":
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise UserError(
                f"--device {device}: this onnxruntime has no GPU; use --device cpu or model.safetensors"
            )
        providers.insert(0, "CUDAExecutionProvider")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors alone
    try:
        return onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # onnxruntime's errors share no other class
        raise _damaged(file, error) from None


def probabilities(session: Any, images: NDArray[np.uint8], file: str | Path = "model.onnx") -> NDArray[Any]:
    """Probabilities (N, classes) of images uint8 (N, C, H, W).

    Raises:
        UserError: if the model takes or gives something else.
    """
    try:
        [found] = session.run(["probabilities"], {"images": images})
    except Exception as error:
        raise _damaged(file, error) from None
    return np.asarray(found)


def _damaged(file: str | Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(f"{file}: onnxruntime cannot use it ({reason}); export the model again")


def _refuse_other_files(content: bytes, file: str | Path) -> None:
    """A tensor of an ONNX model may be kept in any file that the model names: such a model is refused."""
    import onnx

    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:
        raise _damaged(file, error) from None
    waiting = [model]
    while waiting:
        part = waiting.pop()
        if isinstance(part, onnx.TensorProto):
            if part.data_location == onnx.TensorProto.EXTERNAL or part.external_data:
                raise UserError(f"{file}: keeps tensors in other files, which are not read; export it again")
            continue
        for field, value in part.ListFields():
            if field.message_type is not None:
                waiting.extend([value] if hasattr(value, "ListFields") else value)
