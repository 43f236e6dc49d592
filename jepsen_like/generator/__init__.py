"""What a test does next, as pure values, and the one interpreter that carries it out.

`values` (what a generator is asked and answers), `combinators` (stagger, mix, phases, limits, ...), `interpreter`
(the loop that owns the clock). A generator never waits, draws no randomness from outside and changes nothing: it
yields its successor. Source: jepsen.generator.pure (Kingsbury).
"""
