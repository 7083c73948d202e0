"""python -m bsexport.cli: the command bsexport, for launchers that start a module."""

from bsexport.cli import main

main(prog_name="bsexport")
