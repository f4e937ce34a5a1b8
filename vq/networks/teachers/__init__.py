"""Frozen networks whose patch features other networks learn from or quantize."""

from vq.networks.teachers.base import Teacher
from vq.networks.teachers.efficientnet import EfficientNetTeacher
from vq.networks.teachers.encoder import TeacherEncoder

__all__ = ["EfficientNetTeacher", "Teacher", "TeacherEncoder"]
