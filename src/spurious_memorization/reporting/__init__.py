"""What people look at: tables and figures, made only from what a run stores."""
