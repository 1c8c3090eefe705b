"""``python cluster_probe.py``: what the Ray cluster at ``RAY_ADDRESS`` has, as one line of JSON on stdout.

Run by Open-Instruct's Python, since this project's has no Ray; nothing of rft_ilab is imported.
"""

import json
import sys


def main() -> int:
    try:
        import ray

        ray.init(log_to_driver=False, logging_level="ERROR")
        nodes = [
            {"address": node["NodeManagerAddress"], **{k: node["Resources"].get(k, 0.0) for k in ("CPU", "GPU")}}
            for node in ray.nodes()
            if node["Alive"]
        ]
        free = {k: ray.available_resources().get(k, 0.0) for k in ("CPU", "GPU")}
    except Exception as error:  # noqa: BLE001 - one line, whatever it is
        said = " ".join(str(error).split()) or "no Ray cluster answers"
        print(f"{type(error).__name__}: {said}", file=sys.stderr)
        return 1
    print(json.dumps({"nodes": nodes, "free": free, "ray": ray.__version__}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
