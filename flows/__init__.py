"""The methods: one small file each, one OpenML flow each. They know networks and nothing of stores or tasks."""
