"""``python -m rulezoo``."""

from rulezoo.cli import main

if __name__ == "__main__":  # a process that is spawned imports this module again
    main()
