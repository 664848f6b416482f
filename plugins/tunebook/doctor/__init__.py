"""What this machine can run: facts gathered here and in the engines' environments, then judged by rules.

`machine` and `environments` gather; `rules_*` are pure functions from facts to findings; `run` does both.
"""
