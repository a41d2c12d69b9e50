"""How much memory this process may still take."""

from pathlib import Path


def free_memory_bytes(root: str | Path = "/") -> int:
    """Return the bytes available: the system's, or its control group's if that allows less (versions 1 and
    2).

    Raises OSError where the system does not say (no Linux). `root` is where its file systems are looked for.
    """
    base = Path(root)
    lines = (base / "proc/meminfo").read_text().splitlines()
    stated = [line for line in lines if line.startswith("MemAvailable:")]
    if not stated:
        raise OSError("/proc/meminfo does not say how much memory is available")
    available = int(stated[0].split()[1]) * 1024
    return max(0, min([available, *_cgroup_free(base)]))


def _cgroup_free(base: Path) -> list[int]:
    """Return what each control group above this process leaves, of those that set a limit."""
    free = []
    try:
        rows = (base / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    for row in rows:
        _, controllers, path = row.split(":", 2)
        if controllers == "":
            mount, limit, usage, cache = "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            mount, limit, usage = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        top = base / mount
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            found = _left(folder, limit, usage, cache)
            if found is not None:
                free.append(found)
            if folder == top:
                break
    return free


def _left(folder: Path, limit: str, usage: str, cache: str) -> int | None:
    try:
        allowed = (folder / limit).read_text().strip()
        used = int((folder / usage).read_text())
        rows = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if allowed == "max":
        return None
    return int(allowed) - used + int(rows.get(cache, 0))  # file pages go first when room is needed
