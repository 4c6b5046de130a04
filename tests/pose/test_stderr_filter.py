"""Notes of a C++ library are dropped and nothing else is, however blocks of several threads overlap."""

import re
import subprocess
import sys
import threading

from mimicmotion_jax.pose.stderr_filter import without_lines

NOTES = re.compile(rb"NOTE")

OVERLAP = """
import os, re, subprocess, sys, threading, time
from mimicmotion_jax.pose.stderr_filter import without_lines

entered, left = threading.Event(), threading.Event()

def other():
    with without_lines(re.compile(rb"NOTE")):
        entered.set()
        left.wait()

thread = threading.Thread(target=other)
with without_lines(re.compile(rb"NOTE")):
    thread.start()
    entered.wait()
    os.write(2, b"NOTE 1\\nkept 1\\nNOTE 2\\nNO")
    time.sleep(0.01)
    os.write(2, b"TE 2b\\n")  # in pieces
os.write(2, b"NOTE 3\\n50 %\\r")  # the other one is still at it
subprocess.run([sys.executable, "-c", "import sys; sys.stderr.write('child\\\\n')"])
left.set()
thread.join()
os.write(2, b"NOTE 4\\n")
print(threading.active_count(), len(os.listdir("/proc/self/fd")))
"""


def test_overlapping_threads():
    result = subprocess.run([sys.executable, "-c", OVERLAP], capture_output=True, text=True, check=True)
    assert result.stderr == "kept 1\n50 %\nchild\nNOTE 4\n"
    assert result.stdout.split() == ["1", "4"]  # stdin, stdout, stderr and the folder that is listed


def test_every_line_of_many_threads_arrives(capfd):
    def work(number):
        for step in range(50):
            with without_lines(NOTES):
                sys.stderr.write(f"{number}.{step}\n")
                sys.stderr.flush()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(capfd.readouterr().err.split()) == sorted(f"{n}.{step}" for n in range(4) for step in range(50))
