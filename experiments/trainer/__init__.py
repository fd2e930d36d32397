"""Training of any model by any solver and any gradient: what ``experiments.training`` is made of.

options       optimisers, schedules, and the parts of the config that have no name
networks      equilibrium, fixed depth or explicit: one forward, and what it costs
starts        memory of the segment before, and warm starts
evaluation    loss and accuracy of a split
footprint     the bytes of a step
tally         what was counted so far, and which solve failed first
checkpoints   the whole state in a file, written atomically
loop          the steps
"""

from experiments.trainer.loop import Trainer

__all__ = ["Trainer"]
