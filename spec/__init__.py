"""The protocols of Comitia as executable state machines: pure functions over frozen values.

No I/O, no time, no randomness, and nothing imported from the other three folders: the specification judges the
implementation and must not know it. See ARCHITECTURE.md, sections 3 and 4.
"""
