"""``python -m langgraph_valkey``; see `cli`."""

import sys

from langgraph_valkey.cli import main

sys.exit(main())
