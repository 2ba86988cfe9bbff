"""What runs in the agent's process.

=================  =================================================================
`__main__`         the process: takes what the server asks, tells what happens
`desk`             one conversation after another: ask, approve, look back, travel
`keeping`          how it keeps its threads: by `StateTiers`, or plainly, to compare
`graph`            the ReAct loop
`tools`            what the agent can do; a charge waits for approval
`help_pages`       what it knows of the shop, through a semantic cache
`scripted`         how the model that needs no network decides
`showing`          messages and checkpoints, as the page shows them
=================  =================================================================
"""
