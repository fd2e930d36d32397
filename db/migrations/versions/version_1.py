"""The first released schema: where the way begins."""

revision = "1"
down_revision = None


def upgrade() -> None:
    """There is nothing before."""
