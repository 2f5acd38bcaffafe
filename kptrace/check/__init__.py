"""What on the nodes would break Service traffic."""
