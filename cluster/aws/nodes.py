"""Ray's AWS node provider with fallback instance types for when EC2 has no capacity.

Ray's autoscaler itself keeps requesting the same instance type, regardless of the priorities of its node types.
"""

import logging
from typing import Any

from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException

log = logging.getLogger(__name__)

# Errors that another instance type may avoid. Others, such as quotas and typos, would affect that type as well.
NO_CAPACITY = ("InsufficientInstanceCapacity", "InsufficientHostCapacity", "SpotMaxPriceTooLow", "Unsupported")


class Nodes(AWSNodeProvider):
    """Tries the fallback types in `provider.instead` of ray_cluster.yaml in order."""

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        first = node_config["InstanceType"]
        instance_types = [first, *self.provider_config.get("instead", {}).get(first, [])]
        for instance_type in instance_types[:-1]:
            try:
                return super().create_node({**node_config, "InstanceType": instance_type}, tags, count)
            except NodeLaunchException as error:
                if error.category not in NO_CAPACITY:
                    raise
                log.warning("EC2 has no capacity for %s: trying the next instance type", instance_type)
        return super().create_node({**node_config, "InstanceType": instance_types[-1]}, tags, count)
