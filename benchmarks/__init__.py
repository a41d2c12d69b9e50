"""Benchmarks: one module each, run by `python -m benchmarks` (see `__main__`), results under docs/results/.

A module of this folder is a benchmark when it defines

    TITLE = "What it shows, in a few words"
    MINUTES = 5                                      # about how long it takes on two cores

    def measure(work: Path) -> dict[str, Any]: ...   # may keep what is dear to make below `work`

    def missing() -> str | None: ...   # optional: why it cannot be measured here; then what there is stays

    def draw(result: dict[str, Any], figure: matplotlib.figure.Figure) -> None: ...   # optional picture

`measure` returns the content of docs/results/NAME.json, beside machine, versions and date:

    {"rows": [{"model": "vgg16", "size, sparse over pruned": 5.14, ...}, ...],   # the table, column -> value
     "figures": {"vgg16_size_ratio": 5.14, ...},                              # named numbers that targets check
     "spread": {"vgg16_speedup": (2.5, 2.7), ...},                             # optional, the range over the rounds
     "tables": {"Variants": [{...}, ...]},                                     # optional, further tables by caption
     "notes": ["Three replicates.", ...],                                      # sentences, good and bad
     "details": ...}                                                          # optional, anything else

targets.toml holds, per benchmark and figure, `at_least` or `at_most`. `results` turns the files into
docs/results/README.md and fills marked places in README.md and docs.
"""
