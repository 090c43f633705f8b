"""Start NetPrior: ``python app.py [--host 127.0.0.1] [--port 7860] [--device auto] [--max-size 256]``."""

from __future__ import annotations

import argparse
import os
import signal
import sys

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    on_space = "SPACE_ID" in os.environ  # a Hugging Face Space serves on every interface of its container
    parser = argparse.ArgumentParser(description="Watch image priors solve inverse problems, side by side.")
    parser.add_argument(
        "--host", default="0.0.0.0" if on_space else "127.0.0.1", help="address to listen on (default: this machine only)"
    )
    parser.add_argument("--port", type=int, default=7860, help="port; the next free one is taken when it is in use (default 7860)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default: the accelerator if there is one)")
    parser.add_argument("--max-size", type=int, default=256, help="largest side of an image in pixels (default 256)")
    parser.add_argument("--fps", type=float, default=8.0, help="frames a second sent to a browser (default 8)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Parse, build the page, serve until interrupted."""
    chosen = options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # end in order, so that temporary folders go
    from netprior_core.device import pick_device
    from netprior_core.errors import NetPriorError
    from netprior_core.ui.page import launch

    try:
        launch(host=chosen.host, port=chosen.port, device=pick_device(chosen.device), max_size=chosen.max_size, fps=chosen.fps)
    except (NetPriorError, OSError) as error:
        print(f"netprior: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
