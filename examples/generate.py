"""Go on with a text on the device: `python generate.py PACKAGE TEXT [TEMPERATURE]`, on what a device has."""

import sys

import bsexport_runtime
from bsexport_runtime import TextStream

NEW = 64


def main() -> None:
    if not 3 <= len(sys.argv) <= 4:
        sys.exit("usage: generate.py PACKAGE TEXT [TEMPERATURE]")
    package, text, *temperature = sys.argv[1:]
    tokenizer = bsexport_runtime.tokenizer(package)
    session = bsexport_runtime.load(package)
    ids = tokenizer.encode(text).ids
    answer = TextStream(tokenizer.decode, ids)
    print(text, end="", flush=True)
    for tokens in bsexport_runtime.stream(session, ids, NEW, temperature=float(*temperature)):
        print(answer.add(int(tokens[0])), end="", flush=True)
    print(answer.end())


if __name__ == "__main__":
    main()
