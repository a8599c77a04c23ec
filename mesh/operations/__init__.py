"""Operations on a mesh from outside: runs, dead letters, verification, retention, deployment. Prints nothing."""
