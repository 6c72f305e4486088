"""From a bundle back into torch: a trainable hybrid equal to the exported one.

What comes in: an opened bundle. What goes out: a `HybridModule` with the exported one's parameters, modes, ties, kernels,
plan and graphs, its tensors copied out of the file. Its outputs, gradients and `state_dict` are the same, and exporting it
again gives the same bytes. What it does not have is what kernels replaced: `qcascade.distill` needs the hybrid as compiled.

Nothing of the file is executed: modules are torch.nn's and registered kernels, graphs call operators of an allow-list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from qcascade.bundle.hybrid_json import hybrid_of
from qcascade.bundle.manifest import GRAPH, Manifest
from qcascade.bundle.reader import Archive
from qcascade.bundle.tensors import WeightsFile
from qcascade.errors import BundleError
from qcascade.hybrid import HybridModule


def to_torch(archive: Archive) -> HybridModule:
    """The hybrid of a bundle.

    Args:
        archive: Opened and verified.

    Returns:
        The hybrid, in the mode it was exported in, on the CPU.

    Raises:
        BundleError: The bundle holds no graph to train, or one that is not safe or does not fit its weights or manifest.
    """
    if GRAPH not in {entry.path for entry in archive.manifest.files}:
        raise BundleError(f"{archive.path} has no {GRAPH}, so it runs in onnxruntime only; export the hybrid again.")
    hybrid = hybrid_of(archive.read(GRAPH), _Tensors(WeightsFile(archive.weights())))
    _check_kernels(hybrid, archive.manifest)
    return hybrid


class _Tensors(Mapping[str, Tensor]):
    """The file's tensors, each copied when it is asked for."""

    def __init__(self, file: WeightsFile) -> None:
        self._file = file

    def __getitem__(self, name: str) -> Tensor:
        return self._file.tensor(name)

    def __contains__(self, name: object) -> bool:
        return name in self._file.places

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.places)

    def __len__(self) -> int:
        return len(self._file.places)


def _check_kernels(hybrid: HybridModule, manifest: Manifest) -> None:
    """The kernels that are trained are those that the manifest shows."""
    built = {
        name: (hybrid._state.kernels[name], type(kernel).kernel_name, dict(kernel.arguments()))
        for name, kernel in hybrid.kernels.items()
    }
    listed = {entry.name: (entry.module, entry.kernel, entry.arguments) for entry in manifest.kernels}
    if built != listed:
        names = sorted({*built, *listed}, key=str)
        different = next(name for name in names if built.get(name) != listed.get(name))
        raise BundleError(
            f"{GRAPH} and the manifest disagree about the kernel of {different[:80]!r}: {built.get(different)} and "
            f"{listed.get(different)}."
        )
