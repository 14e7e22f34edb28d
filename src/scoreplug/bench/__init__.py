"""Methods against problems whose posterior is known: suite -> cells -> executor -> rows -> tables and a page.

`suite` and `cell` say what is to be done and import no torch; `execute.execute` does one cell, in any process.
"""
