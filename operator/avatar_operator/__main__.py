"""``python -m avatar_operator`` is the command ``avatar-operator``."""

from avatar_operator.cli.main import app

app()
