"""The lab: hosts to provision, as containers on this machine; `python -m lab --help`, docs/lab.md."""
