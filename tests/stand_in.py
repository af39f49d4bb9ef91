"""A stand-in for a GPU, on the CPU: tensors that say they are on cuda:0, and errors where a GPU has them.

What is on the device is known by its storage. A mode of `torch.overrides` answers what is asked of tensors
(`.device`, `.to`, `device=...`), and a dispatch mode sees every operation, those of a backward pass too:

* tensors on both sides in one operation, other than single numbers and indices, are an error;
* so is a generator of the other side;
* a value that the host reads, or a copy that it waits for, is noted, and an error while a graph is captured;
* a capture records operations, and its replay does them again at the same addresses, with the same numbers of
  the host. Values that were there before are put back after a capture: recording is not doing.

Results are those of the CPU to the last bit, where the code does the same on both.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch._dynamo  # modes import it, and not under a stand-in
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

DEVICE, HOST = torch.device("cuda", 0), torch.device("cpu")
READ = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "bincount", "equal"}
ANY_SIDE = {"copy_", "_to_copy", "index", "index_put", "index_put_", "_index_put_impl_", "set_"}
RESHAPING = {"squeeze_", "unsqueeze_", "t_", "transpose_", "detach_"}
READING = {"tolist", "numpy", "__array__"}
ON_THE_HOST = {"promote_types", "_record_function_enter_new", "_record_function_exit", "_local_scalar_dense"}


class MisuseError(RuntimeError):
    """What a GPU would refuse."""


def is_on_device(tensor: Tensor) -> bool:
    return getattr(tensor.untyped_storage(), "on_device", False)


def is_pinned(tensor: Tensor) -> bool:
    return getattr(tensor.untyped_storage(), "pinned", False)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def launches(func: Any, args: Any = ()) -> int:
    """How many kernels or copies a GPU is given for an operation, at least: none for views and for memory."""
    name, returned = func._schema.name.partition("::")[2], func._schema.returns
    if name in ON_THE_HOST | RESHAPING or "empty" in name:
        return 0
    if returned and all(value.alias_info and not value.alias_info.is_write for value in returned):
        return 0
    return sum(args[-1]) if name == "convolution_backward" else 1  # one for each gradient that is asked for


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


@dataclass
class Graph:
    """What was recorded, in place of torch.cuda.CUDAGraph."""

    pool: Any = None
    steps: list[tuple[Any, Any, Any, list[Tensor]]] = field(default_factory=list)
    made: dict[int, Any] = field(default_factory=dict)  # storages, kept alive so that none is another's
    before: dict[int, tuple[Any, Any]] = field(default_factory=dict)
    replays: int = 0

    def note(self, func: Any, args: Any, kwargs: Any, found: Any) -> None:
        given = {_storage(tensor) for tensor in _tensors((args, kwargs))}
        new = [tensor for tensor in _tensors(found) if _storage(tensor) not in given]
        self.made |= {_storage(tensor): tensor.untyped_storage() for tensor in new}
        outputs = [tensor.detach() for tensor in _tensors(found)] if new else []
        self.steps.append((func, args, kwargs, outputs))

    @property
    def launches(self) -> int:
        """Of a replay."""
        return sum(launches(func, args) for func, args, *_ in self.steps)

    def keep(self, tensors: list[Tensor]) -> None:
        """What was there before the capture, as it is."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self.made and storage._cdata not in self.before:
                self.before[storage._cdata] = storage, storage.clone()

    def put_back(self) -> None:
        for storage, value in self.before.values():
            storage.copy_(value)
        self.before = {key: (storage, None) for key, (storage, _) in self.before.items()}

    def replay(self) -> None:
        self.replays += 1
        with _disable_current_modes(), torch._C.DisableTorchFunction(), torch.no_grad():
            for func, args, kwargs, outputs in self.steps:
                found = _tensors(func(*args, **kwargs))
                for output, value in zip(outputs, found, strict=True) if outputs else ():
                    # forward-mode differentiation has zeros without memory, which stay what they are
                    if _storage(output) in self.made and not output._is_zerotensor():
                        output.copy_(value)


class Operations(TorchDispatchMode):
    """Sees every operation of a thread."""

    def __init__(self, standin: "StandIn") -> None:
        super().__init__()
        self.standin = standin
        self.side: bool | None = None  # on which what is made belongs, where arguments do not say
        self.among = False  # whether a function is at work that was given something on the device
        self.graph: Graph | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():
            return self._done(func, args, dict(kwargs or {}))

    def _done(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        name = func._schema.name.partition("::")[2]
        given = _tensors((args, kwargs))
        device = [tensor for tensor in given if is_on_device(tensor)]
        host = [tensor for tensor in given if not is_on_device(tensor)]
        if device:
            self.standin.operations.append(name)
        self._check(name, args, kwargs, device, host)
        alias = args, kwargs
        if self.graph is not None:
            self.graph.keep(given)
            # As they are now: shapes may change in place.
            alias = tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, alias)
        found = func(*args, **kwargs)
        side = self.side
        if side is None:
            # What a function or a backward pass makes from nothing belongs to its arguments or gradients.
            inside = self.among or torch._C._current_graph_task_id() != -1
            side = bool(device) or (not given and inside)
        storages = {_storage(tensor) for tensor in given}
        for tensor in _tensors(found):
            if _storage(tensor) not in storages:
                tensor.untyped_storage().on_device = side
        if self.graph is None and (device or side):
            self.standin.launches += launches(func, args)
        if self.graph is not None and name not in RESHAPING:
            self.graph.note(func, *alias, found)
        return found

    def _check(self, name: str, args: Any, kwargs: Any, device: list[Tensor], host: list[Tensor]) -> None:
        if name == "copy_" and device and host:
            waits = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
            self.standin.note(f"copy ({name})", waits or not is_pinned(host[0]), self.graph)
        elif name in READ and device:
            self.standin.note(f"read ({name})", True, self.graph)
        elif name in ("index", "index_put", "index_put_", "_index_put_impl_") and is_on_device(args[0]):
            for indices in _tensors(args[1]):
                if not is_on_device(indices) and indices.dim():
                    self.standin.note(f"copy ({name} by indices of the host)", True, self.graph)
                if indices.dtype in (torch.bool, torch.uint8):
                    self.standin.note(f"read ({name} by a mask)", True, self.graph)
        elif name in ("index", "index_put_") and any(map(is_on_device, _tensors(args[1]))):
            raise MisuseError(f"{name}: indices are on cuda:0, what they index on the CPU")
        elif name not in ANY_SIDE and device:
            if apart := [tuple(tensor.shape) for tensor in host if tensor.dim()]:
                raise MisuseError(f"{name}: tensors of shape {apart} on the CPU, others on cuda:0")
            if self.graph is not None and any(_storage(tensor) not in self.graph.made for tensor in host):
                raise MisuseError(f"{name}: a number of the host would stay as it is in every replay")


class Functions(TorchFunctionMode):
    """Answers what is asked of tensors and of functions that make them."""

    def __init__(self, standin: "StandIn", operations: Operations) -> None:
        super().__init__()
        self.standin, self.operations = standin, operations

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:
            return DEVICE if is_on_device(args[0]) else HOST
        if func == Tensor.is_cuda.__get__:
            return is_on_device(args[0])
        name = getattr(func, "__name__", "")
        if name in ("to", "cuda", "cpu") and args and isinstance(args[0], Tensor):
            return self._moved(name, args[0], args[1:], kwargs)
        if name == "pin_memory":
            copy = args[0].clone()
            copy.untyped_storage().pinned = True
            return copy
        if name == "is_pinned":
            return is_pinned(args[0])
        if name in READING and isinstance(args[0], Tensor) and is_on_device(args[0]):
            if name in ("numpy", "__array__"):
                raise MisuseError("numpy: a tensor on cuda:0")
            self.standin.note(f"read ({name})", True, self.operations.graph)
        pinned = kwargs.pop("pin_memory", False)
        side = None
        if kwargs.get("device") is not None:
            side = torch.device(kwargs["device"]).type == "cuda"
            kwargs["device"] = HOST
        elif name == "new_tensor":
            side = is_on_device(args[0])
        if (generator := kwargs.get("generator")) is not None:
            of = side if side is not None else any(map(is_on_device, _tensors(args)))
            if of != getattr(generator, "on_device", False):
                raise MisuseError(f"{name}: a generator of the other side")
        if side and name in ("tensor", "new_tensor", "as_tensor"):
            self.standin.note(f"copy ({name})", True, self.operations.graph)
        among, self.operations.among = self.operations.among, any(map(is_on_device, _tensors((args, kwargs))))
        try:
            with self._making(side):
                found = func(*args, **kwargs)
        finally:
            self.operations.among = among
        if pinned:
            found.untyped_storage().pinned = True
        if side is not None and name in ("tensor", "new_tensor"):
            found.untyped_storage().on_device = side
        return found

    @contextlib.contextmanager
    def _making(self, side: bool | None) -> Iterator[None]:
        before = self.operations.side
        self.operations.side = before if side is None else side
        try:
            yield
        finally:
            self.operations.side = before

    def _moved(self, name: str, tensor: Tensor, args: Any, kwargs: dict[str, Any]) -> Tensor:
        own = is_on_device(tensor)
        if name == "to":
            if args and isinstance(args[0], Tensor):
                args = (DEVICE if is_on_device(args[0]) else HOST, args[0].dtype, *args[1:])
            copy = kwargs.pop("copy", False)
            memory_format = kwargs.pop("memory_format", None)
            device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
        else:
            device, dtype = (DEVICE if name == "cuda" else HOST), None
            non_blocking, copy, memory_format = kwargs.get("non_blocking", False), False, None
        side = own if device is None else device.type == "cuda"
        formatted = {} if memory_format is None else {"memory_format": memory_format}
        if side == own:
            return Tensor.to(tensor, dtype or tensor.dtype, copy=copy, **formatted)
        waits = not non_blocking or (side and not is_pinned(tensor) and tensor.dim() > 0)
        self.standin.note(f"copy ({name} {'cuda:0' if side else 'cpu'})", waits, self.operations.graph)
        with self._making(side):
            return Tensor.to(tensor, dtype or tensor.dtype, copy=True, **formatted)


class StandIn:
    """What a test sees of the stand-in.

    Attributes:
        notes: what passed between host and device, in order, as (what, whether the host waited for it).
        operations: names of all operations on the device.
        launches: kernels and copies that the host gave to the device, replays of graphs left out.
        graphs: every capture.
    """

    def __init__(self) -> None:
        self.notes: list[tuple[str, bool]] = []
        self.operations: list[str] = []
        self.launches = 0
        self.graphs: list[Graph] = []
        self.streams = threading.local()
        self.modes = threading.local()

    @property
    def waits(self) -> list[str]:
        return [what for what, waits in self.notes if waits]

    def note(self, what: str, waits: bool, graph: Graph | None) -> None:
        if graph is not None:
            raise MisuseError(f"{what} while a graph is captured")
        self.notes.append((what, waits))

    @contextlib.contextmanager
    def here(self) -> Iterator["StandIn"]:
        """In this thread."""
        operations = Operations(self)
        self.modes.operations = operations
        with Functions(self, operations), operations:
            yield self

    @contextlib.contextmanager
    def graph(
        self, graph: Graph, pool: Any = None, stream: Any = None, capture_error_mode: str = "global"
    ) -> Iterator[None]:
        if getattr(self.streams, "now", None) is None:
            raise MisuseError("a capture on the default stream")
        graph.pool = pool
        self.graphs.append(graph)
        operations = self.modes.operations
        operations.graph = graph
        try:
            yield
        finally:
            operations.graph = None
            with _disable_current_modes(), torch._C.DisableTorchFunction():
                graph.put_back()

    @contextlib.contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self.streams.now = getattr(self.streams, "now", None), stream
        try:
            yield
        finally:
            self.streams.now = before


class _Stream:
    def __init__(self, device: Any = None) -> None:
        pass

    def wait_stream(self, stream: Any) -> None:
        pass

    def synchronize(self) -> None:
        torch.cuda.synchronize()


class _Generator(torch.Generator):
    """Of the CPU or the device; the numbers of the latter are not what a GPU would draw."""

    on_device: bool

    def __new__(cls, device: Any = "cpu") -> "_Generator":
        made = super().__new__(cls)
        made.on_device = torch.device(device).type == "cuda"
        return made


def _patched(patch: pytest.MonkeyPatch, standin: StandIn) -> None:
    gpu: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda device=None: "Stand-in",
        "get_device_capability": lambda device=None: (9, 0),
        "Stream": _Stream,
        "current_stream": lambda device=None: getattr(standin.streams, "now", None) or _Stream(),
        "stream": standin.stream,
        "CUDAGraph": Graph,
        "graph": standin.graph,
        "graph_pool_handle": object,
        "is_current_stream_capturing": lambda: standin.modes.operations.graph is not None,
        "mem_get_info": lambda device=None: (70 << 30, 80 << 30),
        "memory_allocated": lambda device=None: 1 << 30,
        "max_memory_allocated": lambda device=None: 2 << 30,
        "reset_peak_memory_stats": lambda device=None: None,
        "synchronize": lambda device=None: standin.note("wait", True, standin.modes.operations.graph),
        "get_rng_state": lambda device=None: torch.empty(0),
        "set_rng_state": lambda state, device=None: None,
        "manual_seed_all": lambda seed: None,
    }
    for name, value in gpu.items():
        patch.setattr(torch.cuda, name, value)
    autocast, grouped = torch.autocast, torch.optim.Optimizer._group_tensors_by_device_and_dtype

    def on_the_cpu(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return autocast("cpu", *args, **kwargs)

    patch.setattr(torch, "Generator", _Generator)
    patch.setattr(torch, "autocast", on_the_cpu)
    patch.setattr(
        torch.optim.Optimizer,
        "_group_tensors_by_device_and_dtype",
        staticmethod(lambda *a, **k: {(DEVICE, kind): v for (_, kind), v in grouped(*a, **k).items()}),
    )
    patch.setattr(torch, "use_deterministic_algorithms", lambda *_, **__: None)

    thread: Callable[..., Any] = threading.Thread.run

    def run(self: threading.Thread) -> None:
        with standin.here() if self.name.startswith("Thread-") else contextlib.nullcontext():
            thread(self)

    patch.setattr(threading.Thread, "run", run)
    patch.setenv("LONGTAIL_DECODERS", "1")


@contextlib.contextmanager
def stand_in() -> Iterator[StandIn]:
    """A GPU for the length of the block: torch sees one, in this thread and those that it starts."""
    found = StandIn()
    with pytest.MonkeyPatch.context() as patch:
        _patched(patch, found)
        settings = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
        try:
            with found.here():
                yield found
        finally:
            torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = settings
