"""Names that nothing has yet."""


def free_name(stem: str, taken: set[str]) -> str:
    """Return `stem`, numbered where it is among the `taken`, and take it."""
    name, count = stem, 0
    while name in taken:
        count += 1
        name = f"{stem}_{count}"
    taken.add(name)
    return name
