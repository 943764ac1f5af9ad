# SPDX-License-Identifier: Apache-2.0
"""`view_rpm.py REDPATH WORDS...`: stock rpm in the view of a node, which is not changed."""

from __future__ import annotations

import os
import subprocess
import sys

from redpak.family import load_family, load_main
from redrpm.contents import TransactionContents
from redrpm.transaction import NodeTransaction


def main() -> None:
    redpath, *words = sys.argv[1:]
    family = load_family(redpath, main=load_main(None, os.environ))
    view = NodeTransaction(family, notify=lambda text: print(text, file=sys.stderr)).fork()
    view.assemble(TransactionContents(), scriptlets=False)
    # What the view's process starts may not change its root: it is started there.
    os.chroot(view.root)
    os.chdir("/")
    done = subprocess.run(["rpm", "--dbpath", "/var/lib/rpm", *words], check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
