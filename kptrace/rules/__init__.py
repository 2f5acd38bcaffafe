"""Read rulesets in every form into one Ruleset, find Services in it, and describe its rules."""
