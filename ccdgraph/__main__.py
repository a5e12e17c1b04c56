"""``python -m ccdgraph`` is ``ccdgraph``."""

from ccdgraph.cli import main

if __name__ == "__main__":
    main()
