"""What a run may add to its result, an ``Extra`` each.

baselines       what the result has to be compared with
forgetting      the perplexity of a general text before and after training
expressivity    trajectory lengths before and after training
factorization   tensor networks in place of weights
ranks           ranks that change while the model trains
memory          bytes by layer
exporting       the trained model as a plain folder
early_stopping  training that ends when validation no longer improves
"""

from seq2seq.experiment import Extra
from seq2seq.extras.baselines import Baselines
from seq2seq.extras.early_stopping import EarlyStopping
from seq2seq.extras.exporting import Export
from seq2seq.extras.expressivity import Expressivity
from seq2seq.extras.factorization import Factorization
from seq2seq.extras.forgetting import Forgetting
from seq2seq.extras.memory import Memory
from seq2seq.extras.ranks import Ranks

EXTRAS: tuple[type[Extra], ...] = (
    Factorization,
    Baselines,
    Forgetting,
    Expressivity,
    Ranks,
    Memory,
    Export,
    EarlyStopping,
)
"""Every extra, in the order of the run's table and page."""
