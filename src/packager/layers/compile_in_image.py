"""Run by the image's own Python: sources on standard input, bytecode on standard output.

In come two lengths (path, source; big-endian, 32 bits) and both; out goes one length and the
bytecode, empty where the source does not compile.  Next to nothing is imported: what a process
has loaded shows in the bytecode that it makes.
"""

import _imp
import sys
from importlib import _bootstrap_external as importing


def main() -> None:
    """Compile until the input ends."""
    source, result = sys.stdin.buffer, sys.stdout.buffer
    while header := source.read(8):
        lengths = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")
        path, text = source.read(lengths[0]).decode(), source.read(lengths[1])
        try:
            code = compile(text, path, "exec", dont_inherit=True, optimize=0)
            digest = _imp.source_hash(importing._RAW_MAGIC_NUMBER, text)  # type: ignore[attr-defined]
            data = bytes(importing._code_to_hash_pyc(code, digest, False))  # type: ignore[attr-defined]
        except (SyntaxError, ValueError, RecursionError):
            data = b""
        result.write(len(data).to_bytes(4, "big") + data)
        result.flush()


if __name__ == "__main__":
    main()
