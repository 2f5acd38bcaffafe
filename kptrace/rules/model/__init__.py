"""One form for every rule language: tables, chains, rules, expressions, sets."""
