"""The machine: which processors to run on, how busy they are, and what it is, without a name of it."""

import json
import os
import platform
import subprocess
import time
from pathlib import Path

from tools.chapters import ROOT

STAT = Path("/proc/stat")


def own_cpus(wanted=2):
    "List CPUs to run on, the last ones that we may use, each of another core where that can be told; None: unknown."
    if not hasattr(os, "sched_getaffinity"):
        return None
    chosen, taken = [], set()
    for cpu in sorted(os.sched_getaffinity(0), reverse=True):
        if cpu not in taken and len(chosen) < wanted:
            chosen.append(cpu)
            taken.update(siblings(cpu))
    return chosen


def siblings(cpu):
    "Return the CPUs that share a core with `cpu`, itself included."
    try:
        text = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text(encoding="utf-8")
    except OSError:
        return {cpu}
    spans = [part.split("-") for part in text.strip().split(",")]
    return {n for span in spans for n in range(int(span[0]), int(span[-1]) + 1)}


def busy_seconds(cpus, text=None):
    "Return the seconds that `cpus` have been busy since the machine started, stolen ones included; None: can't tell."
    try:
        lines = (STAT.read_text(encoding="utf-8") if text is None else text).splitlines()
    except OSError:
        return None
    rows = {words[0]: [int(word) for word in words[1:]] for words in map(str.split, lines) if words}
    rows = [rows.get(f"cpu{cpu}") for cpu in cpus or ()]
    if not rows or None in rows:
        return None
    # user, nice, system, idle, iowait, irq, softirq, steal: all but the two in which the CPU waits
    return sum(sum(row[:3]) + sum(row[5:8]) for row in rows) / os.sysconf("SC_CLK_TCK")


def own_seconds():
    "Return the CPU seconds of this process and of its children that have ended."
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def python_says(python, code, *arguments, env=None):
    "Run a piece of Python in a process of its own; return the last line that it prints, read as JSON."
    command = [str(python), "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(f"a measurement broke:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def machine(python, cpus):
    "Describe the machine, without a name of it."
    config = python_says(python, "import json, torch; print(json.dumps([torch.__config__.show(), "
                                 "torch.backends.cpu.get_cpu_capability()]))")
    blas = [line.strip(" -") for line in config[0].splitlines() if "Math Kernel" in line or "BLAS_INFO" in line]
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "pinned": cpus is not None,
        "vectors": config[1],
        "blas": blas[0].split("-Product")[0].split(",")[0] if blas else "unknown",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def processor():
    "Return the name of the processor's model."
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
