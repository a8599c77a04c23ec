"""`python -m mesh` is `mesh`."""

import sys

if __name__ == "__main__":
    try:
        from mesh.cli import main

        main()
    except KeyboardInterrupt:  # before `main` could see it
        sys.exit(130)
