"""Launches one recipe on several nodes: renders files one can read and run by hand, then submits them."""

from tunebook.launch.cluster import Cluster, read_cluster
from tunebook.launch.job import Job, plan_job
from tunebook.launch.render import render

__all__ = ["Cluster", "Job", "plan_job", "read_cluster", "render"]
