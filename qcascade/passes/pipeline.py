"""The list of passes from a captured model to a decided plan, in order."""

from __future__ import annotations

from qcascade.passes.base import Finder, Pass
from qcascade.passes.find_attention import FindAttention
from qcascade.passes.find_embeddings import FindEmbeddings
from qcascade.passes.find_heads import FindHeads
from qcascade.passes.find_projections import FindProjections
from qcascade.passes.measure_regions import MeasureRegions
from qcascade.passes.pair_modes import PairModes
from qcascade.passes.propose_candidates import ProposeCandidates
from qcascade.passes.qualify_names import QualifyNames
from qcascade.passes.refuse_shared import RefuseShared
from qcascade.passes.score_candidates import ScoreCandidates
from qcascade.passes.select_partition import SelectPartition

FIND: tuple[Finder, ...] = (FindAttention(), FindEmbeddings(), FindHeads(), FindProjections())
DECIDE: tuple[Pass, ...] = (
    QualifyNames(),
    RefuseShared(),
    PairModes(FIND),
    MeasureRegions(),
    ProposeCandidates(),
    ScoreCandidates(),
    SelectPartition(),
)
