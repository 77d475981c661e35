"""Ray's own way to start nodes on AWS, but for one thing: where EC2 has run out of a type, the next one will do.

Ray's autoscaler would ask for the same type again and again, whatever the priorities of its node types.
"""

import logging
from typing import Any

from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException

log = logging.getLogger(__name__)

# What EC2 says where another type may be had; anything else (a quota, a typo) would fail for the next one as well.
RUN_OUT = ("InsufficientInstanceCapacity", "InsufficientHostCapacity", "SpotMaxPriceTooLow", "Unsupported")


class Nodes(AWSNodeProvider):
    """`provider.instead` of ray_cluster.yaml: for an instance type, those that take its place, the best first."""

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        first = node_config["InstanceType"]
        kinds = [first, *self.provider_config.get("instead", {}).get(first, [])]
        for kind in kinds[:-1]:
            try:
                return super().create_node({**node_config, "InstanceType": kind}, tags, count)
            except NodeLaunchException as error:
                if error.category not in RUN_OUT:
                    raise
                log.warning("EC2 has no %s at the moment: trying the next type", kind)
        return super().create_node({**node_config, "InstanceType": kinds[-1]}, tags, count)
