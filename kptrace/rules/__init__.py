"""PURE: text and JSON of rulesets -> Ruleset; which chain belongs to which Service, in words."""
