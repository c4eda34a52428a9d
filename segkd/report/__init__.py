"""Published against reproduced: tables, figures, HTML."""
