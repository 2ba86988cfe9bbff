"""Answers from the documents of this repository, with and without a semantic cache.

A pipeline loads the documents, splits, embeds and retrieves them, and has a chat model
answer from what it found. The same stream of questions is asked twice: without a cache, and
with one. In the middle a document is edited, while somebody is still answering from its old
text. All figures at the end are those of the run.

    python -m examples.rag_pipeline                        ten seconds, no network
    python -m examples.rag_pipeline --plot latency.svg     draws what each answer took
    python -m examples.rag_pipeline --model openai:...     any chat model of LangChain

It needs ``langgraph-valkey[local,wordllama,plot]``. Where the server is, and which model
answers, may be said by LANGGRAPH_VALKEY_URL and RAG_MODEL as well.

====================  ==============================================================
`questions`           what is asked, in other words again and again
`corpus`              the documents: loaded, split, embedded, retrieved, edited
`extractive_model`    a chat model that needs no network: it quotes
`pipeline`            from question to answer, through the cache
`tour`                the same questions without a cache and with one
`story`               the edit, a late writer, and why something hits or misses
`figures`             what came of it: a table and a plot
====================  ==============================================================
"""
