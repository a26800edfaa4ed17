"""`ray start …` for a cluster of one machine, with every port on the loopback interface.

Ray takes a worker's 127.0.0.1 for the machine's own address, on which it then listens for anybody. Its mode for macOS and Windows keeps to
loopback, in every process that has the variable set, but refuses a worker beside the head; here the refusal is lifted.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    from ray._private import ray_constants, services  # type: ignore[import-not-found]
    from ray.scripts.scripts import main  # type: ignore[import-not-found]

    services.get_node_ip_address = lambda address="": "127.0.0.1"
    ray_constants.ENABLE_RAY_CLUSTER = True
    sys.argv[0] = "ray"
    sys.exit(main())
