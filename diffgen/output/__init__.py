"""What goes out: the judged plan, the exported dataset, the report."""
