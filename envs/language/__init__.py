"""Tasks for language models: ordinary environments whose observations and actions are texts.

`reset` gives the prompt, an action is the whole answer of a turn; a task of one turn is an episode of one step. Beside
those below, any gymnasium environment between two `Text` spaces is one, and `Prompts` makes one of a function.
"""

from .ids import task_id, task_ids, task_spec
from .prompts import Prompts
from .reasoning import ReasoningGym
from .rewards import RewardActor, RewardError
from .rows import TextEnvironments
from .sentiment import Sentiment
from .tasks import Copy, Count, Recall, Reverse, Sort, Sums, TextTask

__all__ = [
    "Copy",
    "Count",
    "Prompts",
    "ReasoningGym",
    "Recall",
    "Reverse",
    "RewardActor",
    "RewardError",
    "Sentiment",
    "Sort",
    "Sums",
    "TextEnvironments",
    "TextTask",
    "task_id",
    "task_ids",
    "task_spec",
]
