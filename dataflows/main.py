"""The main job: all three legs in one process, on a real broker or on one inside the process.

python -m bytewax.run dataflows.main
"""

from bytewax.dataflow import Dataflow

from dataflows import process
from dataflows.archive import archive
from dataflows.ingest import ingest
from dataflows.live import live


def flow() -> Dataflow:
    return process.start(ingest=ingest, live=live, archive=archive)
