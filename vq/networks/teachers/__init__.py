"""Frozen networks whose patch features other networks learn from or quantize."""

from vq.networks.teachers.base import Teacher
from vq.networks.teachers.efficientnet import EfficientNetTeacher
from vq.networks.teachers.encoder import TeacherEncoder, TimmEncoder
from vq.networks.teachers.timm import TimmTeacher

__all__ = ["EfficientNetTeacher", "Teacher", "TeacherEncoder", "TimmEncoder", "TimmTeacher"]
