"""Any readable data set → the layout of the Decathlon or of nnU-Net, or plain NIfTI with a table.

Voxels and geometry stay as they are: nothing is resampled, and only what a NIfTI header must say is written.
"""

from oncoseg.convert.formats import FORMATS, Format
from oncoseg.convert.plan import Names
from oncoseg.convert.run import Converted, convert

__all__ = ["FORMATS", "Converted", "Format", "Names", "convert"]
