"""What clients saw, judged: is there an order of the operations that explains every answer?

Reading a history (`events`), pairing invocations with completions (`operations`), linearizability of registers by
search (`search`, with the naive `oracle` beside it), Jepsen's set-full (`set_full`), and the smallest part of a
history that is still wrong, for a person (`counterexample`, `timeline`). Nothing here knows how the history came to
be.
"""
