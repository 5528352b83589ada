"""The variables of a caller that the agent may know: its client sends these, it takes no others.

They change how something is printed, or tell a job's own devices. The installed program imports
this module before anything else, so it imports next to nothing.
"""

from canhazgpu.schedulers.slurm.environment import JOB_ID, NODE_NAME

VARIABLES = (
    "CANHAZGPU_GPUS",
    "COLUMNS",
    "COMP_CWORD",
    "COMP_WORDS",
    "CUDA_VISIBLE_DEVICES",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LINES",
    "NO_COLOR",
    NODE_NAME,
    JOB_ID,
    "TERM",
    "TZ",
    "_CANHAZGPU_COMPLETE",
)
