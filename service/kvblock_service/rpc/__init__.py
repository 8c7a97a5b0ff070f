"""The wire: requests become commands, outcomes become answers, errors become statuses."""
