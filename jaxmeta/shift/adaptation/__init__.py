"""Test-time adaptation of trained learners: one file a method, one signature."""

from jaxmeta.shift.adaptation.adapter import Adapter as Adapter
from jaxmeta.shift.adaptation.adapter import Model as Model
from jaxmeta.shift.adaptation.augment import Jitter as Jitter
from jaxmeta.shift.adaptation.batch_norm import BatchStatistics as BatchStatistics
from jaxmeta.shift.adaptation.batch_norm import RunningStatistics as RunningStatistics
from jaxmeta.shift.adaptation.driver import Adapting as Adapting
from jaxmeta.shift.adaptation.driver import adapt_stream as adapt_stream
from jaxmeta.shift.adaptation.eata import Eata as Eata
from jaxmeta.shift.adaptation.eata import Fisher as Fisher
from jaxmeta.shift.adaptation.lame import Lame as Lame
from jaxmeta.shift.adaptation.memo import Memo as Memo
from jaxmeta.shift.adaptation.rdumb import ResetEvery as ResetEvery
from jaxmeta.shift.adaptation.sar import Sar as Sar
from jaxmeta.shift.adaptation.tent import Tent as Tent
