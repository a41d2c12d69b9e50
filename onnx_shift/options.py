"""How the library's parameters are spelled as options of the command line."""

_SPELLED = {"batches": "batch", "input_shapes": "shape", "metrics": "metric", "providers": "provider",
            "runtimes": "runtime"}  # fmt: skip


def as_option(parameter: str, value: object = None) -> str:
    """Return `--max-variants 3` for max_variants=3, `--no-verify` for verify=False; by its name alone without value."""
    option = _SPELLED.get(parameter, parameter).replace("_", "-")
    if value is False:
        return f"--no-{option}"
    if value is None or value is True:
        return f"--{option}"
    if isinstance(value, list | tuple):
        return " ".join(as_option(parameter, one) for one in value)
    return f"--{option} {value}"
