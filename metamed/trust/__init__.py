"""How far the instances of a multiple-instance model can be trusted when no instance's class is known.

Of a bag only the class is known, so a model may be right about bags for reasons that have nothing to do with its
instances. What can be looked at without instance labels: whether the scores of instances stay when the model is learned
again (Cheplygina et al., Label stability in multiple instance learning, MICCAI 2015, arXiv 1703.04986), whether other
variants agree, whether the model's answer hangs on the instances that it points at, whether neighbours score alike, and
whether instances of bags with a finding score higher than those of bags without. `benchmarks/trust.py` examines which
of these ranks models as the true instances do.
"""

from metamed.trust.judging import Fit, Judged, Learn, Model, finding_probability, judge
from metamed.trust.measures import TRUST, Trust, TrustMeasure, measure, trust_measure

__all__ = ["TRUST", "Fit", "Judged", "Learn", "Model", "Trust", "TrustMeasure", "finding_probability", "judge",
           "measure", "trust_measure"]  # fmt: skip
