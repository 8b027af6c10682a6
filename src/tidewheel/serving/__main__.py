import sys

from tidewheel.serving.server import main

if __name__ == "__main__":
    sys.exit(main())
