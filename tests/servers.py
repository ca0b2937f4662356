# SPDX-License-Identifier: Apache-2.0
"""Real web servers for tests."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools import tool


@contextmanager
def nginx(folder: Path, setting: str, *, within: str = "") -> Iterator[str]:
    """nginx over `folder`/www, with `setting` in its server and `within` in its http block; gives the URL."""
    program = tool("nginx")
    work = folder / "nginx"
    work.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    temporary = "".join(f"{kind}_temp_path {work};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (work / "conf").write_text(
        f"daemon off; master_process off; pid {work}/pid; error_log {work}/error.log; events {{}}\n"
        f"http {{ {temporary} access_log off; {within}\n"
        f"server {{ listen 127.0.0.1:{port}; root {folder}/www; {setting} }} }}\n"
    )
    with subprocess.Popen([program, "-c", f"{work}/conf", "-p", str(work), "-e", f"{work}/error.log"]) as process:
        try:
            for _ in range(200):
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.02)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
