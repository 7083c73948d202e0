"""Load a model with so much private memory beyond the imports, and run it: `python -m tests.bench.limited JOB BYTES`.

JOB: a bsexport.bench.worker.Job as JSON. Fails if the memory does not do.
"""

from __future__ import annotations

import json
import resource
import sys

from bsexport.bench import worker


def main() -> None:
    job = worker.Job(**json.loads(sys.argv[1]))
    load = worker.loader(job)
    inputs = worker.read_inputs(job, job.points[0])
    limit = worker.status()["VmData"] + int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    load().run(None, inputs)


if __name__ == "__main__":
    main()
