"""What chosen runs need and this machine cannot have: found out, and said in one list, before anything starts."""
