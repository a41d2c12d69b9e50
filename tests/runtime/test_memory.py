"""Free memory, control groups included."""

from pathlib import Path

import pytest

from onnx_shift.runtime.memory import free_memory_bytes


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    "files, free",
    [
        ({}, 1000 * 1024),
        ({"proc/self/cgroup": "0::/app\n"}, 1000 * 1024),
        (
            {
                "proc/self/cgroup": "0::/app/inner\n",
                "sys/fs/cgroup/app/memory.max": "600000\n",
                "sys/fs/cgroup/app/memory.current": "200000\n",
                "sys/fs/cgroup/app/memory.stat": "anon 1\ninactive_file 50000\n",
                "sys/fs/cgroup/app/inner/memory.max": "max\n",
                "sys/fs/cgroup/app/inner/memory.current": "1\n",
                "sys/fs/cgroup/app/inner/memory.stat": "anon 1\n",
            },
            450_000,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,memory:/app\n",
                "sys/fs/cgroup/memory/app/memory.limit_in_bytes": "300000\n",
                "sys/fs/cgroup/memory/app/memory.usage_in_bytes": "400000\n",
                "sys/fs/cgroup/memory/app/memory.stat": "total_inactive_file 20000\n",
            },
            0,
        ),
    ],
)
def test_free_memory_respects_control_groups(tmp_path: Path, files: dict[str, str], free: int) -> None:
    write(tmp_path / "proc/meminfo", "MemTotal: 5000 kB\nMemAvailable: 1000 kB\n")
    for name, text in files.items():
        write(tmp_path / name, text)
    assert free_memory_bytes(tmp_path) == free
