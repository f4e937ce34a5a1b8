"""The work of the commands on the processes of a Ray cluster (`--engine ray`), with the results of one process.

Ray is imported where a cluster is joined, and nowhere else.
"""

from vq.engine.on_ray.cluster import ray_workers
from vq.engine.on_ray.features import RayFeatures
from vq.engine.on_ray.images import RayImages
from vq.engine.on_ray.pool import Workers
from vq.engine.on_ray.shards import RayShards

__all__ = ["RayFeatures", "RayImages", "RayShards", "Workers", "ray_workers"]
