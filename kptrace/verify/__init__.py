"""Expected results, tried one by one."""
