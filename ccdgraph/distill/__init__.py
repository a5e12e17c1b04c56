"""Distillation: teachers, the lists they hand over, and the terms that learn from them."""

from ccdgraph.distill.cd import CD
from ccdgraph.distill.concf import ConCF
from ccdgraph.distill.de import DE
from ccdgraph.distill.diagnostics import agreement, linear_cka
from ccdgraph.distill.hetcomp import HetComp
from ccdgraph.distill.ir import IRRRD
from ccdgraph.distill.phr import PHR
from ccdgraph.distill.rd import RD
from ccdgraph.distill.regression import Regression
from ccdgraph.distill.rrd import RRD
from ccdgraph.distill.teacher import Ensemble, TeacherLists, teacher_lists
from ccdgraph.distill.topology import FTD, HTD
from ccdgraph.distill.trajectory import Trajectories, observed_lists

__all__ = [
    "CD",
    "DE",
    "FTD",
    "HTD",
    "IRRRD",
    "PHR",
    "RD",
    "RRD",
    "ConCF",
    "Ensemble",
    "HetComp",
    "Regression",
    "TeacherLists",
    "Trajectories",
    "agreement",
    "linear_cka",
    "observed_lists",
    "teacher_lists",
]
