"""Tables, figures, the HTML report and what is exported."""
