"""A ReAct agent that survives being killed.

It answers questions from the documents of this repository: the README, the change
log and the docstrings. Its threads live in a Valkey with a data directory, so
neither the end of its process nor that of the server ends a conversation.

    python -m examples.agent                      a tour of one minute at most
    python -m examples.agent --interactive        you ask, and approve
    python -m examples.agent --model openai:...   any chat model of LangChain

========================  ======================================================
`words`, `documents`      what it knows, and how it searches
`tools`                   what it can do; writing a note needs approval
`models`                  which chat model it thinks with
`scripted_model`,         one that needs no network, and the rules it follows
`rules`
`graph`                   the ReAct loop
`conversation`, `chat`    one thread: ask, stop for approval, go on
`tour`, `child`,          the tour, and what it shows
`branches`, `crowd`,
`sizes`
`show`                    how it looks in a terminal
========================  ======================================================
"""
