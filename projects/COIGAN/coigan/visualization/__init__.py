"""Pictures and the HTML reports."""
