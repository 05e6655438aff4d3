"""The command line: a thin module per DVC stage, and the user's commands.

A stage that DVC or torchrun started ends with it, so that none works on unseen while the next run starts. That is said
here, before the imports of a stage take their seconds. dvc.yaml starts stages by ``exec``: of the shells some would
stand between DVC and the stage otherwise, and outlive DVC.
"""

import os

from pipeline.core.processes import end_with_parent

if os.environ.keys() & {"DVC_STAGE", "TORCHELASTIC_RUN_ID"}:
    end_with_parent()
