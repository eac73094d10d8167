"""What a crowd's answers say: where the images lie and how good its annotators are, found together."""

from metamed.crowd.consensus import Consensus, consensus
from metamed.crowd.consistency import left_out, transitivity
from metamed.crowd.embedding import Embedding, embed
from metamed.crowd.quality import Quality, annotator_quality, keep_reliable

__all__ = [
    "Consensus",
    "Embedding",
    "Quality",
    "annotator_quality",
    "consensus",
    "embed",
    "keep_reliable",
    "left_out",
    "transitivity",
]
