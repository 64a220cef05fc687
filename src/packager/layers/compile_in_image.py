"""Run by the image's own Python: a file of sources to a file of bytecode.

The first file holds, for each module, two lengths (path, source; big-endian, 32 bits) and both.
The second gets the number that says whose bytecode it is, and for each module one length and
the bytecode, empty where the source does not compile.

What a process holds shows in the bytecode that it makes: the strings that it has interned and
what else refers to them.  So next to nothing is imported, nothing of one module is left when
the next is compiled, and the one name that would stay for ever (that of ``import *``, for
single characters are never freed) is there from the start.
"""

import _imp
import sys
from importlib import _bootstrap_external as importing


def main() -> None:
    """Compile until the input ends."""
    sys.intern("*")
    with open(sys.argv[1], "rb") as source, open(sys.argv[2], "wb") as result:  # noqa: PTH123
        result.write(importing.MAGIC_NUMBER)
        while header := source.read(8):
            lengths = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")
            data = compiled(source.read(lengths[0]).decode(), source.read(lengths[1]))
            result.write(len(data).to_bytes(4, "big") + data)
            result.flush()  # should the next one end this process, it is known which it was


def compiled(path: str, text: bytes) -> bytes:
    """Compile one module to an unchecked, hash-based file (PEP 552)."""
    try:
        code = compile(text, path, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, RecursionError):
        return b""
    digest = _imp.source_hash(importing._RAW_MAGIC_NUMBER, text)  # type: ignore[attr-defined]
    return bytes(importing._code_to_hash_pyc(code, digest, False))  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
