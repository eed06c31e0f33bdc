"""Execution contexts of one engine: each with memory of its own, all with the same compiled kernels.

TensorRT sets its kernels when it builds; TensorRT-RTX compiles them where it runs, once for each size.
There the contexts share a cache of kernels, which is kept next to the plan (:mod:`.cache`), and the
engine captures its own CUDA graphs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import cache
from .cache import CacheOwner


class Contexts:
    """Makes the contexts of an engine.

    Parameters
    ----------
    module
        TensorRT or TensorRT-RTX, imported.
    engine
        A deserialised plan.
    plan
        Its file.
    owner
        For what its kernels are compiled.
    """

    def __init__(self, module: Any, engine: Any, plan: Path, owner: CacheOwner) -> None:
        self._engine, self._owner = engine, owner
        self._path = cache.cache_file(plan)
        #: Whether contexts capture CUDA graphs by themselves.
        self.captures = False
        #: Why the kernels next to the plan are not used, or empty.
        self.note = ""
        # Memory for the sizes that are run, not for the largest that the plan takes: that can be gigabytes.
        strategies = getattr(module, "ExecutionContextAllocationStrategy", None)
        self._how: Any = getattr(strategies, "USER_MANAGED", None)
        self.managed = self._how is not None
        self._cache: Any = None
        self._kept = b""
        make = getattr(engine, "create_runtime_config", None)
        config = None if make is None else make()
        if config is not None and hasattr(config, "create_runtime_cache"):
            self._configure(module, config)

    def _configure(self, module: Any, config: Any) -> None:
        if self.managed:
            config.set_execution_context_allocation_strategy(self._how)
        if hasattr(config, "dynamic_shapes_kernel_specialization_strategy"):
            # Before the first batch, not behind its back: the same kernels from the first to the last.
            kinds = module.DynamicShapesKernelSpecializationStrategy
            config.dynamic_shapes_kernel_specialization_strategy = kinds.EAGER
        if hasattr(config, "cuda_graph_strategy"):
            config.cuda_graph_strategy = module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            self.captures = True
        self._cache = config.create_runtime_cache()
        kernels, self.note = cache.load(self._path, self._owner)
        if kernels is not None:
            if self._cache.deserialize(kernels):
                self._kept = kernels
            else:
                self.note = f"{self._path}: not used, because {self._owner.engine} does not take it"
        config.set_runtime_cache(self._cache)
        self._how = config

    def create(self) -> Any:
        """Return a new context; ``None`` where the engine makes none."""
        return self._engine.create_execution_context(*(() if self._how is None else (self._how,)))

    def keep(self) -> None:
        """Write what has been compiled next to the plan, where it can be; the next start is quick then."""
        if self._cache is None:
            return
        kernels = bytes(memoryview(self._cache.serialize()))
        if kernels != self._kept and cache.save(self._path, self._owner, kernels):
            self._kept = kernels
