"""What the standard library raises at damaged zip archives, of images or of weights."""

import struct
import zipfile
import zlib
from lzma import LZMAError

DAMAGED_ZIP = (
    *(zipfile.BadZipFile, EOFError, LZMAError, zlib.error, struct.error),
    *(RuntimeError, ValueError, ArithmeticError, LookupError),
)
"""At damaged, encrypted (RuntimeError), or oddly compressed ones.

Numbers and offsets in a damaged archive are anything, so the last line is what reading by them may raise.
"""
