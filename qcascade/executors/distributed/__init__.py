"""Circuits simulated by many processes: a Dask cluster, or the workers of any `concurrent.futures.Executor`.

`pools` is what chunks are sent to, `chunks` divides the work, `worker` is what runs there, `submission` sends chunks and waits for them,
`executor` is the executor, and `adjoint` exact simulation with gradients.
"""

from qcascade.executors.distributed.executor import DaskExecutor, DistributedExecutor

__all__ = ["DaskExecutor", "DistributedExecutor"]
