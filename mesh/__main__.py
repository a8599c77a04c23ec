"""`python -m mesh` is `mesh`."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:  # the working directory comes first; it may hold a `queue.py`
        sys.path.append(sys.path.pop(0))
    try:
        from mesh.cli import main

        main()
    except KeyboardInterrupt:  # before `main` could see it
        sys.exit(130)
