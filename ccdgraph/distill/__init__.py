"""Distillation: teachers, the lists they hand over, and the terms that learn from them."""

from ccdgraph.distill.rrd import RRD
from ccdgraph.distill.teacher import Ensemble, TeacherLists, teacher_lists

__all__ = ["RRD", "Ensemble", "TeacherLists", "teacher_lists"]
